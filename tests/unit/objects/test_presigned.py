"""Which requests are told that presigned ones are not offered."""

import pytest

from mooring.objects.errors import S3Error
from mooring.objects.presigned import check_not_presigned


@pytest.mark.parametrize(
    ("method", "query", "content_type"),
    [
        ("GET", b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00", b""),
        ("GET", b"AWSAccessKeyId=AKIA&Signature=a%3D&Expires=1", b""),
        ("PUT", b"uploads&%41WSAccessKeyId=AKIA", b""),
        ("POST", b"", b"multipart/form-data; boundary=x"),
    ],
)
def test_a_presigned_request_is_refused_in_words(method, query, content_type):
    with pytest.raises(S3Error, match=r"Presigned .* are not offered by this version") as caught:
        check_not_presigned(method, query, [(b"content-type", content_type)])
    assert (caught.value.code, caught.value.status) == ("NotImplemented", 501)
    check_not_presigned(method, query, [(b"content-type", content_type), (b"authorization", b"AWS4-HMAC-SHA256 x")])


def test_any_other_request_goes_on_to_its_signature():
    check_not_presigned("GET", b"prefix=AWSAccessKeyId=&Expires=1", [])
    check_not_presigned("POST", b"delete", [(b"content-type", b"text/xml")])
