from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.objects import names
from mooring.objects.errors import S3Error


@pytest.mark.parametrize("name", ["abc", "a-b.c", "sagemaker-us-east-1-000000000000", "1ab", "a" * 63])
def test_these_are_bucket_names(name):
    assert names.is_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 64,
        "Abc",
        "a_b",
        "-ab",
        "ab-",
        "a..b",
        "192.168.1.1",
        "xn--abc",
        "abc-s3alias",
        "a/b",
        "..",
        "a\nbc",
        "abc\n",
    ],
)
def test_these_are_not(name):
    assert not names.is_bucket_name(name)


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("localhost", ""),
        ("localhost:4747", ""),
        ("127.0.0.1:4747", ""),
        ("[::1]:4747", ""),
        ("my-bucket.localhost:4747", "my-bucket"),
        ("s3.localhost", ""),
        ("my.dotted.bucket.s3.localhost:80", "my.dotted.bucket"),
        ("s3.us-east-1.localhost", ""),
        ("b-1.s3.us-east-1.localhost", "b-1"),
        ("s3.amazonaws.com", ""),
        ("b-1.s3.amazonaws.com", "b-1"),
        ("b-1.s3.eu-central-1.amazonaws.com", "b-1"),
        ("b-1.s3-us-gov-west-1.amazonaws.com", "b-1"),
        ("s3.us-west-2.amazonaws.com", ""),
        ("some.host.example", ""),
        ("B-1.LocalHost", "b-1"),
        ("", ""),
    ],
)
def test_the_host_names_a_bucket_or_leaves_it_to_the_path(host, bucket):
    assert names.virtual_bucket(host) == bucket


@pytest.mark.parametrize(
    ("path", "bucket", "key"),
    [
        (b"/", "", b""),
        (b"/bkt", "bkt", b""),
        (b"/bkt/", "bkt", b""),
        (b"/bkt//a", "bkt", b"/a"),
        (b"/bkt/a//b/", "bkt", b"a//b/"),
        (b"/bkt/../../etc/passwd", "bkt", b"../../etc/passwd"),
        (b"/bkt/%2e%2E/%2F", "bkt", b"..//"),
        (b"/bkt/a%252F", "bkt", b"a%2F"),
        (b"/bkt/a+b%20c", "bkt", b"a+b c"),
        (b"/bkt/%C3%BC", "bkt", "ü".encode()),
        (b"/bkt/.", "bkt", b"."),
    ],
)
def test_a_key_is_the_path_decoded_once_and_nothing_more(path, bucket, key):
    assert names.target_of("localhost", path) == names.Target(bucket=bucket, key=key)


def test_in_virtual_host_style_the_whole_path_is_the_key():
    assert names.target_of("bkt.localhost", b"/bkt/k") == names.Target(bucket="bkt", key=b"bkt/k")


@given(st.text(min_size=1, max_size=200).filter(lambda key: len(key.encode("utf-8", "replace")) <= 1024))
def test_every_key_survives_its_encoding(key):
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is no text
    assert names.target_of("h", b"/bkt/" + quote(key).encode()).key == raw


@pytest.mark.parametrize(
    ("path", "code"),
    [(b"/bkt/%ff", "InvalidURI"), (b"/%ff/k", "InvalidURI"), (b"/b/" + b"k" * 1025, "KeyTooLongError")],
)
def test_keys_that_cannot_be_are_refused(path, code):
    with pytest.raises(S3Error) as caught:
        names.target_of("localhost", path)
    assert caught.value.code == code
    assert names.target_of("localhost", b"/b/" + b"k" * 1024).key == b"k" * 1024
