from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from mooring.objects import listing


@dataclass(frozen=True)
class Item:
    key: bytes


class Keys:
    """Sorted keys that can be sought; counts what was read."""

    def __init__(self, keys):
        self.keys = sorted(set(keys))
        self.read = 0

    def fetch(self, start, end, limit):
        found = [Item(key) for key in self.keys if key >= start and (end is None or key < end)][:limit]
        self.read += len(found)
        return found


def model(keys, *, prefix, delimiter):
    """Every entry of a listing at once, as S3's documentation words it."""
    entries = set()
    for key in keys:
        if key.startswith(prefix):
            at = key.find(delimiter, len(prefix)) if delimiter else -1
            entries.add((key[: at + len(delimiter)], True) if at >= 0 else (key, False))
    return sorted(entries)


def pages(keys, *, prefix=b"", delimiter=b"", limit, after=b""):
    source = Keys(keys)
    entries = []
    while True:
        page = listing.page_of(source.fetch, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
        here = sorted([(row.key, False) for row in page.rows] + [(p, True) for p in page.prefixes])
        assert len(here) <= limit
        assert page.truncated <= (len(here) == limit)
        entries += here
        if not page.truncated:
            return entries
        assert page.last == here[-1][0]
        after = page.last


texts = st.text(alphabet="ab/-\u00e9\U0001f600\uffff", max_size=6)


@given(
    keys=st.sets(texts.filter(bool)),
    prefix=texts,
    delimiter=st.sampled_from(["", "/", "a", "-/"]),
    limit=st.integers(1, 7),
)
def test_all_pages_together_are_the_whole_listing_whatever_their_size(keys, prefix, delimiter, limit):
    encoded = [key.encode() for key in keys]
    arguments = {"prefix": prefix.encode(), "delimiter": delimiter.encode()}
    assert pages(encoded, limit=limit, **arguments) == model(encoded, **arguments)


@given(keys=st.sets(texts.filter(bool)), after=texts, limit=st.integers(1, 7))
def test_a_listing_goes_on_behind_a_key_that_need_not_exist(keys, after, limit):
    encoded = sorted(key.encode() for key in keys)
    found = [key for key, _ in pages(encoded, limit=limit, after=after.encode())]
    assert found == [key for key in encoded if key > after.encode()]


@given(st.binary())
def test_after_prefix_is_the_lowest_bound_of_a_prefix(prefix):
    bound = listing.after_prefix(prefix)
    if bound is None:
        assert set(prefix) <= {0xFF}
    else:
        assert bound > prefix + b"\xff" * 3
        assert not bound.startswith(prefix)


def test_a_common_prefix_costs_one_seek_and_not_its_keys():
    keys = [b"a/%06d" % number for number in range(5000)] + [b"b"]
    source = Keys(keys)
    page = listing.page_of(source.fetch, prefix=b"", delimiter=b"/", after=b"", limit=1000)
    assert (page.prefixes, [row.key for row in page.rows]) == ((b"a/",), [b"b"])
    assert source.read < 10


def test_a_marker_inside_a_common_prefix_still_shows_the_prefix():
    page = listing.page_of(Keys([b"a/1", b"a/2", b"b"]).fetch, prefix=b"", delimiter=b"/", after=b"a/1", limit=10)
    assert page.prefixes == (b"a/",)


def test_nothing_is_asked_for_and_nothing_is_given():
    page = listing.page_of(Keys([b"a"]).fetch, prefix=b"", delimiter=b"", after=b"", limit=0)
    assert (page.rows, page.truncated) == ((), False)
