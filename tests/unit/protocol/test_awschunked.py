"""aws-chunked bodies: fed whole or byte by byte they give back the data; anything changed is refused."""

import hashlib
import io

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import errors
from mooring.domain.routing import Credential
from mooring.protocol import awschunked, sigv4

NOW_S = 1_700_000_000.0
CREDENTIAL = Credential(access_key="KEY", secret_key="secret", account="0" * 12, arn="arn")
FAILURES = (
    awschunked.MalformedChunk,
    awschunked.MalformedTrailer,
    awschunked.IncompleteBody,
    errors.InvalidSignature,
)


def head_of(mode: bytes) -> sigv4.Head:
    host = (b"host", b"h")
    added = sigv4.sign(
        method=b"PUT",
        path=b"/b/k",
        query=b"",
        headers=[host],
        payload_sha256=mode.decode(),
        access_key="KEY",
        secret_key="secret",
        region="us-east-1",
        service="s3",
        now_s=NOW_S,
    )
    verifier = sigv4.Verifier([CREDENTIAL], "us-east-1")
    return verifier.check_head(
        method=b"PUT", path=b"/b/k", query=b"", headers=[host, *added], now_s=NOW_S, services=("s3",)
    )


HEADS = {mode: head_of(mode) for mode in (sigv4.STREAMING_SIGNED, sigv4.STREAMING_SIGNED_TRAILER)}


def unsigned(chunks, trailers=()):
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return body + b"0\r\n" + b"".join(b"%s:%s\r\n" % pair for pair in trailers) + b"\r\n"


def signed(chunks, trailers=(), *, mode):
    """The chain as the S3 reference describes it, written out a second time."""
    head = HEADS[mode]
    previous, body = head.signature, b""
    context = head.timestamp + b"\n" + head.scope + b"\n"
    for chunk in [*[chunk for chunk in chunks if chunk], b""]:
        text = b"\n".join(
            [previous, hashlib.sha256(b"").hexdigest().encode(), hashlib.sha256(chunk).hexdigest().encode()]
        )
        previous = head.key.sign(b"AWS4-HMAC-SHA256-PAYLOAD\n" + context + text).encode()
        body += b"%x;chunk-signature=%s\r\n" % (len(chunk), previous) + (chunk + b"\r\n" if chunk else b"")
    if mode == sigv4.STREAMING_SIGNED_TRAILER:
        canonical = b"".join(b"%s:%s\n" % pair for pair in trailers)
        text = previous + b"\n" + hashlib.sha256(canonical).hexdigest().encode()
        last = head.key.sign(b"AWS4-HMAC-SHA256-TRAILER\n" + context + text).encode()
        body += b"".join(b"%s:%s\r\n" % pair for pair in trailers) + b"x-amz-trailer-signature:" + last + b"\r\n"
    return body + b"\r\n"


def decode(body, length, mode=sigv4.STREAMING_UNSIGNED_TRAILER, steps=None):
    decoder = awschunked.Decoder(length, mode, head=HEADS.get(mode))
    out = []
    for piece in [body] if steps is None else steps(body):
        out += decoder.feed(piece)
    decoder.finish()
    assert decoder.done
    return b"".join(out), decoder.trailers


def singly(body):
    return [body[at : at + 1] for at in range(len(body))]


chunk_lists = st.lists(st.binary(max_size=40), max_size=5)
trailer_lists = st.sampled_from([(), ((b"x-amz-checksum-crc32", b"AAAAAA=="),), ((b"a", b"1"), (b"b", b""))])


@given(
    chunks=chunk_lists,
    trailers=trailer_lists,
    mode=st.sampled_from(sorted(sigv4.PAYLOAD_WORDS - {sigv4.UNSIGNED_PAYLOAD})),
)
def test_a_body_fed_whole_or_byte_by_byte_gives_back_the_data(chunks, trailers, mode):
    if mode == sigv4.STREAMING_SIGNED:
        trailers = ()
    is_unsigned = mode == sigv4.STREAMING_UNSIGNED_TRAILER
    body = unsigned(chunks, trailers) if is_unsigned else signed(chunks, trailers, mode=mode)
    data = b"".join(chunks)
    expected = (data, {name.decode(): value.decode() for name, value in trailers})
    assert decode(body, len(data), mode) == expected
    assert decode(body, len(data), mode, singly) == expected


@given(data=st.binary(max_size=3000), size=st.integers(1, 1000))
def test_what_botocore_sends_is_decoded(data, size):
    wrapper = AwsChunkedWrapper(
        io.BytesIO(data), checksum_cls=Crc32Checksum, checksum_name="x-amz-checksum-crc32", chunk_size=size
    )
    decoded, trailers = decode(wrapper.read(), len(data))
    assert decoded == data
    assert list(trailers) == ["x-amz-checksum-crc32"]


@given(chunks=chunk_lists, data=st.data())
def test_a_signed_body_changed_in_one_byte_is_refused(chunks, data):
    mode = sigv4.STREAMING_SIGNED_TRAILER
    body = signed(chunks, ((b"x-amz-checksum-crc32", b"AAAAAA=="),), mode=mode)
    at = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.integers(1, 255))
    changed = body[:at] + bytes([body[at] ^ other]) + body[at + 1 :]
    try:
        decoded = decode(changed, sum(map(len, chunks)), mode)
    except FAILURES:
        return
    # Spelling that means the same (hex digits' and names' case, blanks) may differ; what is decoded may not.
    assert decoded == (b"".join(chunks), {"x-amz-checksum-crc32": "AAAAAA=="})


@given(chunks=chunk_lists, cut=st.integers(1, 200))
def test_a_body_cut_short_is_incomplete(chunks, cut):
    body = unsigned(chunks, ((b"a", b"1"),))
    with pytest.raises(awschunked.IncompleteBody):
        decode(body[: max(0, len(body) - cut)], sum(map(len, chunks)))


@given(st.binary(max_size=200), st.integers(0, 50))
def test_any_bytes_give_data_or_a_typed_error(body, length):
    for steps in (None, singly):
        try:
            decode(body, length, steps=steps)
        except FAILURES:
            continue


@pytest.mark.parametrize(
    ("body", "length", "error"),
    [
        (b"5\r\nhello\r\n0\r\n\r\n", 4, awschunked.IncompleteBody),
        (b"5\r\nhello\r\n0\r\n\r\n", 6, awschunked.IncompleteBody),
        (b"5\r\nhelloo\r\n0\r\n\r\n", 6, awschunked.MalformedChunk),
        (b"5\nhello\r\n0\r\n\r\n", 5, awschunked.MalformedChunk),
        (b"-5\r\nhello\r\n0\r\n\r\n", 5, awschunked.MalformedChunk),
        (b" 5\r\nhello\r\n0\r\n\r\n", 5, awschunked.MalformedChunk),
        (b"0x5\r\nhello\r\n0\r\n\r\n", 5, awschunked.MalformedChunk),
        (b"5;ext=1\r\nhello\r\n0\r\n\r\n", 5, awschunked.MalformedChunk),
        (b"5;chunk-signature=" + b"0" * 64 + b"\r\nhello\r\n0\r\n\r\n", 5, awschunked.MalformedChunk),
        (b"ffffffffffffffff\r\n", 5, awschunked.IncompleteBody),
        (b"0" * 2000, 5, awschunked.MalformedChunk),
        (b"0\r\n\r\nmore", 0, awschunked.MalformedChunk),
        (b"0\r\nno colon\r\n\r\n", 0, awschunked.MalformedTrailer),
        (b"0\r\na:1\r\na:2\r\n\r\n", 0, awschunked.MalformedTrailer),
        (b"0\r\na:\xff\r\n\r\n", 0, awschunked.MalformedTrailer),
        (b"0\r\n" + b"".join(b"a%d:1\r\n" % n for n in range(2000)) + b"\r\n", 0, awschunked.MalformedTrailer),
        (b"0\r\nx-amz-trailer-signature:00\r\n\r\n", 0, awschunked.MalformedTrailer),
    ],
)
def test_malformed_bodies_are_refused_with_a_typed_error(body, length, error):
    for steps in (None, singly):
        with pytest.raises(error):
            decode(body, length, steps=steps)


def test_trailers_of_a_signed_body_must_be_signed_and_cannot_be_taken_away():
    mode = sigv4.STREAMING_SIGNED_TRAILER
    whole = signed([b"data"], ((b"x-amz-checksum-crc32", b"AAAAAA=="),), mode=mode)
    assert decode(whole, 4, mode) == (b"data", {"x-amz-checksum-crc32": "AAAAAA=="})
    without_signature = whole[: whole.index(b"x-amz-trailer-signature")] + b"\r\n"
    without_trailers = whole[: whole.index(b"x-amz-checksum-crc32")] + b"\r\n"
    for body in (without_signature, without_trailers):
        with pytest.raises(errors.InvalidSignature):
            decode(body, 4, mode)


def test_chunks_may_not_change_places():
    mode = sigv4.STREAMING_SIGNED
    body = signed([b"aaaa", b"bbbb"], mode=mode)
    line = len(b"4;chunk-signature=") + 64 + 2 + 4 + 2
    swapped = body[line : 2 * line] + body[:line] + body[2 * line :]
    with pytest.raises(errors.InvalidSignature):
        decode(swapped, 8, mode)


def test_only_chunked_words_make_a_decoder():
    with pytest.raises(ValueError, match="not an aws-chunked"):
        awschunked.Decoder(0, sigv4.UNSIGNED_PAYLOAD)
    with pytest.raises(ValueError, match="signature"):
        awschunked.Decoder(0, sigv4.STREAMING_SIGNED)
