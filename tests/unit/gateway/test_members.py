"""Members are read once for requests that send the same, and never for others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import errors
from mooring.gateway.members import MemberReader

HEADERS = [
    b"content-type",
    b"accept",
    b"x-amzn-sagemaker-custom-attributes",
    b"x-amzn-sagemaker-target-variant",
    b"x-other",
]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"a", b"b"]),
            st.dictionaries(st.sampled_from(HEADERS), st.sampled_from([b"x", b"y", b"xy"])),
        ),
        max_size=20,
    )
)
def test_what_is_kept_reads_the_same_as_what_is_fresh(requests: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
    kept = MemberReader()
    for name, headers in requests:
        assert kept.read(name, headers) == MemberReader().read(name, headers)


def test_only_what_the_container_may_see_is_forwarded() -> None:
    headers = dict.fromkeys(HEADERS, b"v") | {b"authorization": b"secret", b"host": b"h"}
    _, lines = MemberReader().read(b"demo", headers)
    assert lines == b"Content-Type: v\r\nAccept: v\r\nX-Amzn-SageMaker-Custom-Attributes: v\r\n\r\n"


def test_a_refusal_is_a_refusal_each_time() -> None:
    reader = MemberReader()
    for _ in range(2):
        with pytest.raises(errors.ValidationError):
            reader.read(b"demo", {b"x-amzn-sagemaker-target-model": b"m"})
        with pytest.raises(errors.ValidationError):
            reader.read(b"-", {})
