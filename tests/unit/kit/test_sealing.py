"""Sealing: whole and piecewise are the same, any range opens, and nothing that was tampered with does."""

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mooring.kit import sealing
from mooring.kit.sealing import CHUNK_BYTES, TAG_BYTES, Opener, Sealer, SealingError

KEY = bytes(range(32))
EDGES = (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7)
SIZES = st.one_of(st.sampled_from(EDGES), st.integers(0, 4 * CHUNK_BYTES))
PLAIN = os.urandom(4 * CHUNK_BYTES)
STEP = CHUNK_BYTES + TAG_BYTES


def seal(data, *cuts, key=KEY):
    sealer = Sealer(key)
    bounds = [0, *sorted(cuts), len(data)]
    pieces = [sealer.update(data[start:end]) for start, end in itertools.pairwise(bounds)]
    return b"".join(pieces) + sealer.finish()


@settings(max_examples=50)
@given(SIZES, st.lists(st.integers(0, 4 * CHUNK_BYTES), max_size=6))
def test_a_body_sealed_piece_by_piece_is_the_body_sealed_whole(size, cuts):
    data = PLAIN[:size]
    sealed = seal(data, *(min(cut, size) for cut in cuts))
    assert sealed == seal(data)
    assert len(sealed) == sealing.sealed_size(size)
    assert sealing.open_whole(KEY, sealed, size) == data


@settings(max_examples=100)
@given(SIZES.filter(bool), st.data())
def test_any_range_opens_from_the_chunks_that_hold_it_alone(size, data):
    start = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - start))
    extent = sealing.extent(size, start, length)
    sealed = seal(PLAIN[:size])
    chunks = sealed[extent.start : extent.start + extent.length]
    assert len(chunks) == extent.length <= length + 2 * CHUNK_BYTES + (length // CHUNK_BYTES + 2) * TAG_BYTES
    opened = Opener(KEY, size).open(extent.number, chunks)
    assert opened[extent.skip : extent.skip + length] == PLAIN[start : start + length]


@settings(max_examples=60)
@given(SIZES, st.data())
def test_one_changed_bit_anywhere_is_noticed(size, data):
    sealed = bytearray(seal(PLAIN[:size]))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealingError):
        sealing.open_whole(KEY, bytes(sealed), size)


def test_chunks_in_another_order_or_repeated_do_not_open():
    sealed = seal(PLAIN)
    first, second, rest = sealed[:STEP], sealed[STEP : 2 * STEP], sealed[2 * STEP :]
    for wrong in (second + first + rest, first + first + rest):
        with pytest.raises(SealingError):
            sealing.open_whole(KEY, wrong, len(PLAIN))


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_a_body_cut_at_a_chunks_end_does_not_open_even_if_its_size_is_said_to_be_that(chunks):
    cut = seal(PLAIN)[: chunks * STEP]
    with pytest.raises(SealingError):
        sealing.open_whole(KEY, cut, len(PLAIN))
    with pytest.raises(SealingError):
        sealing.open_whole(KEY, cut, chunks * CHUNK_BYTES)


def test_a_body_that_goes_on_behind_its_end_does_not_open():
    sealed = seal(PLAIN[:CHUNK_BYTES])
    with pytest.raises(SealingError):
        sealing.open_whole(KEY, sealed + sealed, 2 * CHUNK_BYTES)


def test_another_key_opens_nothing():
    with pytest.raises(SealingError):
        sealing.open_whole(bytes(32), seal(b"data"), 4)


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_wrapped_secret_opens_with_what_it_was_bound_to(secret, associated):
    wrapped = sealing.wrap(KEY, secret, associated)
    assert sealing.unwrap(KEY, wrapped, associated) == secret
    for key, bound in ((KEY, associated + b"x"), (bytes(32), associated)):
        with pytest.raises(SealingError):
            sealing.unwrap(key, wrapped, bound)


@given(st.binary(max_size=60))
def test_no_garbage_unwraps(garbage):
    with pytest.raises(SealingError):
        sealing.unwrap(KEY, garbage, b"")


def test_derived_keys_differ_by_purpose_and_are_always_the_same():
    assert sealing.derive(KEY, "a") == sealing.derive(KEY, "a")
    assert len({sealing.derive(KEY, "a"), sealing.derive(KEY, "b"), sealing.derive(bytes(32), "a"), KEY}) == 4
    assert len(sealing.derive(KEY, "a", 16)) == 16


def test_a_chunk_is_what_aes_gcm_makes_of_it_with_its_number_as_nonce():
    """The format on disk: it must not change by accident."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    data = PLAIN[: CHUNK_BYTES + 3]
    cipher = AESGCM(KEY)
    first = cipher.encrypt(bytes(12), data[:CHUNK_BYTES], None)
    last = cipher.encrypt((1).to_bytes(11, "big") + b"\x01", data[CHUNK_BYTES:], None)
    assert seal(data) == first + last
