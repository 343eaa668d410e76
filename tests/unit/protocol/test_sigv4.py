"""Signatures: what botocore signs verifies, anything changed afterwards does not."""

import contextlib
import hashlib
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from mooring.domain import errors
from mooring.domain.routing import Credential
from mooring.protocol import sigv4

NOW_S = 1_700_000_000.0
STAMP = "20231114T221320Z"
CREDENTIAL = Credential(
    access_key="MOORINGKEY", secret_key="s3cr3t/+", account="000000000000", arn="arn:aws:iam::000000000000:root"
)
HOST = (b"host", b"127.0.0.1:4747")


class _At:
    """botocore's signer with the clock of the test."""

    def string_to_sign(self, request, canonical_request):
        return super().string_to_sign(request, canonical_request)

    def add_auth(self, request):
        request.context["timestamp"] = STAMP
        self._modify_request_before_signing(request)
        signature = self.signature(self.string_to_sign(request, self.canonical_request(request)), request)
        self._inject_signature_to_request(request, signature)


class Plain(_At, SigV4Auth):
    pass


class ForS3(_At, S3SigV4Auth):
    pass


def boto_signed(
    *,
    method="POST",
    target="/endpoints/demo/invocations",
    headers=(),
    body=b"body",
    service="sagemaker",
    region="us-east-1",
    secret=CREDENTIAL.secret_key,
    access_key=CREDENTIAL.access_key,
    token=None,
):
    """Request as botocore signs it: arguments of verify()."""
    request = AWSRequest(method, f"http://127.0.0.1:4747{target}", data=body)
    request.headers["Host"] = "127.0.0.1:4747"
    for name, value in headers:
        request.headers[name] = value
    signer = (ForS3 if service == "s3" else Plain)(Credentials(access_key, secret, token), service, region)
    signer.add_auth(request)
    path, _, query = target.partition("?")
    return {
        "method": method.encode(),
        "path": path.encode(),
        "query": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
        "payload_sha256": hashlib.sha256(body).hexdigest(),
    }


def check(request, *, now_s=NOW_S, services=("sagemaker", "s3"), region="us-east-1", credentials=(CREDENTIAL,)):
    return sigv4.Verifier(credentials, region).verify(**request, now_s=now_s, services=services)


def with_header(request, name, value):
    kept = [(key, old) for key, old in request["headers"] if key.lower() != name.lower()]
    return {**request, "headers": [*kept, (name, value)] if value is not None else kept}


def header_of(request, name):
    return next(value for key, value in request["headers"] if key.lower() == name.lower())


def test_a_request_signed_by_botocore_is_accepted_and_names_its_caller():
    identity = check(boto_signed())
    assert identity == sigv4.Identity(
        access_key="MOORINGKEY",
        account="000000000000",
        arn="arn:aws:iam::000000000000:root",
        service="sagemaker",
        region="us-east-1",
    )


segment = st.text(st.sampled_from("abzAZ09-_.~!*'();:@&$,+% é世"), max_size=6)
words = st.text(st.sampled_from("abcXYZ019-_.~/+ =&%é世"), max_size=8)


def quoted(text):
    return quote(text, safe="-_.~")


targets = st.builds(
    lambda segments, query: (
        "/"
        + "/".join(quoted(s) for s in segments)
        + ("?" + "&".join(f"{quoted(k)}={quoted(v)}" for k, v in query)) * bool(query)
    ),
    st.lists(segment, max_size=5),
    st.lists(st.tuples(words, words), max_size=4),
)
header_values = st.text(st.sampled_from('ab \tc;=,"é'), max_size=12)
header_lists = st.lists(
    st.tuples(
        st.sampled_from(["X-Amz-Meta-A", "x-custom", "Content-Type", "X-Amzn-SageMaker-Custom-Attributes"]),
        header_values,
    ),
    max_size=5,
)


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "HEAD"]),
    target=targets,
    headers=header_lists,
    body=st.binary(max_size=64),
    service=st.sampled_from(["sagemaker", "s3"]),
)
def test_whatever_botocore_signs_verifies(method, target, headers, body, service):
    check(boto_signed(method=method, target=target, headers=headers, body=body, service=service))


@given(target=targets, headers=header_lists, body=st.binary(max_size=64), service=st.sampled_from(["sagemaker", "s3"]))
def test_what_we_sign_verifies(target, headers, body, service):
    path, _, query = target.partition("?")
    digest = hashlib.sha256(body).hexdigest()
    given_headers = [HOST, *((name.encode(), value.encode()) for name, value in headers)]
    added = sigv4.sign(
        method=b"PUT",
        path=path.encode(),
        query=query.encode(),
        headers=given_headers,
        payload_sha256=digest,
        access_key=CREDENTIAL.access_key,
        secret_key=CREDENTIAL.secret_key,
        region="us-east-1",
        service=service,
        now_s=NOW_S,
    )
    ours = {
        "method": b"PUT",
        "path": path.encode(),
        "query": query.encode(),
        "headers": [*given_headers, *added],
        "payload_sha256": digest,
    }
    check(ours)


@pytest.mark.parametrize(
    "target", ["/", "/a/.", "/a/..", "/a/../", "//a//b//", "/a/./b", "/..", "/a%2Fb", "/a%20b/%7E"]
)
def test_paths_are_normalized_as_botocore_does(target):
    check(boto_signed(target=target))
    check(boto_signed(target=target, service="s3"))


def test_any_change_of_a_signed_part_is_refused():
    request = boto_signed(target="/endpoints/demo/invocations?a=1&b=2", headers=[("Content-Type", "text/csv")])
    authorization = header_of(request, b"Authorization")
    tampered = [
        {**request, "method": b"PUT"},
        {**request, "path": b"/endpoints/other/invocations"},
        {**request, "path": b"/endpoints/demo/invocations/"},
        {**request, "query": b"a=1&b=3"},
        {**request, "query": b"a=1"},
        {**request, "query": b""},
        {**request, "payload_sha256": hashlib.sha256(b"other").hexdigest()},
        with_header(request, b"Content-Type", b"text/plain"),
        with_header(request, b"Content-Type", None),
        with_header(request, b"Host", b"elsewhere"),
        {**request, "headers": [*request["headers"], (b"Content-Type", b"text/csv")]},
        {**request, "headers": [*request["headers"], (b"host", b"127.0.0.1:4747")]},
        with_header(request, b"Authorization", authorization[:-1] + (b"0" if authorization[-1:] != b"0" else b"1")),
        with_header(request, b"Authorization", authorization[:-1]),
        with_header(request, b"Authorization", authorization.replace(b"content-type;", b"")),
        with_header(request, b"X-Amz-Date", b"20231114T221321Z"),
    ]
    for changed in tampered:
        with pytest.raises(errors.InvalidSignature) as caught:
            check(changed)
        assert "The request signature we calculated does not match" in str(caught.value)


@given(data=st.data())
def test_a_flipped_bit_anywhere_in_a_signed_header_is_refused(data):
    request = boto_signed(headers=[("X-Amzn-SageMaker-Target-Variant", "A")])
    index = data.draw(st.integers(0, len(request["headers"]) - 1))
    name, value = request["headers"][index]
    at = data.draw(st.integers(0, len(value) - 1))
    flipped = value[:at] + bytes([value[at] ^ (1 << data.draw(st.integers(0, 6)))]) + value[at + 1 :]
    changed = {**request, "headers": [*request["headers"][:index], (name, flipped), *request["headers"][index + 1 :]]}
    if name.lower() == b"authorization":
        # Some changes only re-spell the header (separators); what was signed is then still what is checked.
        try:
            parsed = sigv4.parse_authorization(flipped)
        except errors.IncompleteSignature:
            return
        original = sigv4.parse_authorization(value)
        if (parsed.scope, parsed.signed_headers, parsed.access_key, parsed.signature) == (
            original.scope,
            original.signed_headers,
            original.access_key,
            original.signature,
        ):
            return
    with pytest.raises(errors.AuthError):
        check(changed)


@pytest.mark.parametrize(
    ("now_s", "words"),
    [
        (
            NOW_S + 901,
            "Signature expired: 20231114T221320Z is now earlier than 20231114T221321Z (20231114T222821Z - 15 min.)",
        ),
        (
            NOW_S - 901,
            "Signature not yet current: 20231114T221320Z is still later than 20231114T221319Z (20231114T215819Z + 15 min.)",
        ),
    ],
)
def test_a_request_outside_of_a_quarter_of_an_hour_is_refused_in_awss_words(now_s, words):
    with pytest.raises(errors.RequestExpired) as caught:
        check(boto_signed(), now_s=now_s)
    assert str(caught.value) == words


@pytest.mark.parametrize("offset_s", [-900, 900])
def test_a_request_at_the_edge_of_the_allowed_skew_is_accepted(offset_s):
    check(boto_signed(), now_s=NOW_S + offset_s)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"region": "eu-west-1"},
            errors.WrongRegion,
            "Credential should be scoped to a valid region, not 'eu-west-1'. ",
        ),
        (
            {"service": "lambda"},
            errors.InvalidSignature,
            "Credential should be scoped to correct service: 's3', 'sagemaker'. ",
        ),
        ({"secret": "wrong"}, errors.InvalidSignature, "The request signature we calculated"),
        ({"access_key": "NOBODY"}, errors.UnrecognizedClient, "The security token included in the request is invalid."),
        ({"token": "abc"}, errors.InvalidToken, "The security token included in the request is invalid."),
    ],
)
def test_wrong_credentials_and_scopes_are_refused_in_awss_words(change, error, words):
    with pytest.raises(error) as caught:
        check(boto_signed(**change))
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(("service", "region"), [("iam", "us-east-1"), ("sts", "us-east-1"), ("sts", "eu-west-1")])
def test_global_services_may_be_signed_for_their_home_region(service, region):
    check(boto_signed(service=service, region=region), region="eu-west-1", services=("iam", "sts"))


def test_other_services_may_not_be_signed_for_the_home_region():
    with pytest.raises(errors.WrongRegion):
        check(boto_signed(region="us-east-1"), region="eu-west-1")


def test_an_unsigned_request_is_refused():
    request = with_header(boto_signed(), b"Authorization", None)
    with pytest.raises(errors.MissingAuthenticationToken):
        check(request)
    with pytest.raises(errors.PresignedNotOffered):
        check({**request, "query": b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00"})


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"AWS AKID:c2ln",
        b"Bearer abc",
        b"AWS4-HMAC-SHA256",
        b"AWS4-HMAC-SHA256 Credential=a/20231114/r/s/aws4_request, SignedHeaders=host",
        b"AWS4-HMAC-SHA256 Credential=a/20231114/r/s/aws4_request, Signature=00",
        b"AWS4-HMAC-SHA256 SignedHeaders=host, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=a/20231114/r/s/aws5, SignedHeaders=host, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=a/2023111/r/s/aws4_request, SignedHeaders=host, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=20231114/r/s/aws4_request, SignedHeaders=host, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=\xff/20231114/r/s/aws4_request, SignedHeaders=host, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=a/20231114/r/s/aws4_request, SignedHeaders=host, SignedHeaders=x, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=a/20231114/r/s/aws4_request, SignedHeaders=host, Signature=00, Signature=01",
        b"AWS4-HMAC-SHA256 Credential=a/20231114/r/s/aws4_request, SignedHeaders=host, Signature=",
        b"AWS4-HMAC-SHA256 Credential=a/20231114/r/s/aws4_request, nonsense, SignedHeaders=host, Signature=00",
        b"AWS4-HMAC-SHA256 Credential=" + b"a" * 9000 + b"/20231114/r/s/aws4_request, SignedHeaders=host, Signature=00",
    ],
)
def test_a_header_that_is_not_of_signature_v4_is_incomplete(value):
    with pytest.raises(errors.IncompleteSignature):
        sigv4.parse_authorization(value)


@given(st.binary(max_size=200))
def test_no_header_makes_the_parser_fail_otherwise(value):
    for text in (
        value,
        b"AWS4-HMAC-SHA256 " + value,
        b"AWS4-HMAC-SHA256 Credential=" + value + b",SignedHeaders=a,Signature=0",
    ):
        with contextlib.suppress(errors.IncompleteSignature):
            sigv4.parse_authorization(text)


def test_the_header_is_read_in_any_order_and_spacing():
    request = boto_signed()
    algorithm, _, rest = header_of(request, b"Authorization").partition(b" ")
    credential, signed, signature = rest.split(b", ")
    for parts in ([signature, credential, signed], [credential, signature, signed]):
        for separator in (b",", b", ", b" , "):
            check(with_header(request, b"Authorization", algorithm + b" " + separator.join(parts)))


def test_parse_authorization_gives_the_scope():
    parsed = sigv4.parse_authorization(
        b"AWS4-HMAC-SHA256 Credential=KEY/20231114/eu-west-1/sagemaker/aws4_request, "
        b"SignedHeaders=host;x-amz-date, Signature=" + b"ab" * 32
    )
    assert (parsed.access_key, parsed.date, parsed.region, parsed.service) == (
        "KEY",
        "20231114",
        "eu-west-1",
        "sagemaker",
    )
    assert parsed.signed_headers == (b"host", b"x-amz-date")
    assert parsed.signature == b"ab" * 32
    assert parsed.scope == b"20231114/eu-west-1/sagemaker/aws4_request"


def resigned(headers, *, drop=(), service="sagemaker"):
    """Sign by hand without some headers (as a careless client would), then send all."""
    signed = [(name, value) for name, value in headers if name.lower() not in drop]
    added = sigv4.sign(
        method=b"POST",
        path=b"/",
        query=b"",
        headers=signed,
        payload_sha256=sigv4.EMPTY_SHA256,
        access_key=CREDENTIAL.access_key,
        secret_key=CREDENTIAL.secret_key,
        region="us-east-1",
        service=service,
        now_s=NOW_S,
    )
    return {
        "method": b"POST",
        "path": b"/",
        "query": b"",
        "headers": [*headers, *added],
        "payload_sha256": sigv4.EMPTY_SHA256,
    }


def test_host_must_be_signed():
    with pytest.raises(errors.HeadersNotSigned) as caught:
        check(resigned([HOST], drop=(b"host",)))
    assert str(caught.value) == "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."


def test_an_x_amz_header_that_is_not_signed_is_refused_by_name():
    with pytest.raises(errors.HeadersNotSigned) as caught:
        check(resigned([HOST, (b"X-Amz-Target", b"SageMaker.DeleteModel")], drop=(b"x-amz-target",)))
    assert caught.value.names == ("x-amz-target",)
    assert "'X-Amz-Target' must be a 'SignedHeader'" in str(caught.value)


@pytest.mark.parametrize(
    "stamp", [b"", b"yesterday", b"20231314T221320Z", b"20231114T251320Z", b"2023-11-14T22:13:20Z", b"20231114T221320"]
)
def test_a_date_that_cannot_be_read_is_incomplete(stamp):
    with pytest.raises(errors.IncompleteSignature):
        check(with_header(boto_signed(), b"X-Amz-Date", stamp))


def test_a_request_without_any_date_is_incomplete():
    with pytest.raises(errors.IncompleteSignature, match="'X-Amz-Date' or a 'Date'"):
        check(with_header(boto_signed(), b"X-Amz-Date", None))


def test_the_scope_must_be_of_the_requests_own_day():
    request = boto_signed()
    moved = header_of(request, b"Authorization").replace(b"/20231114/", b"/20231113/")
    with pytest.raises(errors.InvalidSignature, match="Date in Credential scope does not match"):
        check(with_header(request, b"Authorization", moved))


def test_a_date_header_serves_where_x_amz_date_is_not_sent():
    request = boto_signed(headers=[("Date", "now")])
    assert header_of(request, b"Date") == b"Tue, 14 Nov 2023 22:13:20 -0000"
    check(request)
    with pytest.raises(errors.InvalidSignature):
        check(with_header(request, b"Date", b"Tue, 14 Nov 2023 22:13:21 -0000"))


@pytest.mark.parametrize("word", sorted(sigv4.PAYLOAD_WORDS))
def test_an_unsigned_or_streamed_payload_is_for_s3_only(word):
    for service, refused in (("s3", False), ("sagemaker", True)):
        added = sigv4.sign(
            method=b"PUT",
            path=b"/bucket/key",
            query=b"",
            headers=[HOST] if service == "s3" else [HOST, (b"x-amz-content-sha256", word)],
            payload_sha256=word.decode(),
            access_key=CREDENTIAL.access_key,
            secret_key=CREDENTIAL.secret_key,
            region="us-east-1",
            service=service,
            now_s=NOW_S,
        )
        headers = [HOST, *added] if service == "s3" else [HOST, (b"x-amz-content-sha256", word), *added]
        verifier = sigv4.Verifier([CREDENTIAL], "us-east-1")
        arguments = {"method": b"PUT", "path": b"/bucket/key", "query": b"", "headers": headers, "now_s": NOW_S}
        if refused:
            with pytest.raises(errors.InvalidSignature):
                verifier.check_head(**arguments, services=("sagemaker",))
        else:
            head = verifier.check_head(**arguments, services=("s3",))
            assert head.payload == word
            assert sigv4.finish(head, None).service == "s3"


def test_s3_requests_must_declare_their_payload():
    request = boto_signed(service="s3", method="PUT", target="/b/k")
    with pytest.raises(errors.PayloadNotDeclared):
        check(with_header(request, b"X-Amz-Content-SHA256", None))
    with pytest.raises(errors.PayloadNotDeclared):
        check(with_header(request, b"X-Amz-Content-SHA256", b"nonsense"))


def test_a_declared_digest_must_be_that_of_the_body():
    body = b"real"
    request = boto_signed(headers=[("X-Amz-Content-SHA256", hashlib.sha256(b"declared").hexdigest())], body=body)
    with pytest.raises(errors.InvalidSignature):
        check(request)
    honest = boto_signed(headers=[("X-Amz-Content-SHA256", hashlib.sha256(body).hexdigest())], body=body)
    check(honest)


def test_the_head_alone_is_never_enough_outside_of_s3():
    request = boto_signed()
    head = sigv4.Verifier([CREDENTIAL], "us-east-1").check_head(
        **{name: request[name] for name in ("method", "path", "query", "headers")}, now_s=NOW_S, services=("sagemaker",)
    )
    with pytest.raises(ValueError, match="digest"):
        sigv4.finish(head, None)


def test_characters_sent_unescaped_are_accepted_when_signed_escaped():
    escaped = boto_signed(service="s3", method="PUT", target="/bucket/a%20b%28c%29?prefix=x%2Fy")
    check({**escaped, "path": b"/bucket/a%20b(c)", "query": b"prefix=x/y"})


def test_the_cache_of_keys_is_bounded_and_ignores_strangers():
    verifier = sigv4.Verifier([CREDENTIAL], "us-east-1")
    for day in range(400):
        scope = f"Credential=MOORINGKEY/{day:08d}/us-east-1/sagemaker/aws4_request, SignedHeaders=host;x-amz-date"
        headers = [HOST, (b"authorization", f"AWS4-HMAC-SHA256 {scope}, Signature=00".encode())]
        with pytest.raises(errors.IncompleteSignature):
            verifier.check_head(
                method=b"GET", path=b"/", query=b"", headers=headers, now_s=NOW_S, services=("sagemaker",)
            )
    assert len(verifier._proven) <= 256


def test_secrets_do_not_show_in_representations():
    head = sigv4.Verifier([CREDENTIAL], "us-east-1").check_head(
        **{name: boto_signed()[name] for name in ("method", "path", "query", "headers")},
        now_s=NOW_S,
        services=("sagemaker",),
    )
    assert CREDENTIAL.secret_key not in repr(head)
    assert CREDENTIAL.secret_key not in repr(CREDENTIAL)


def test_headers_may_come_by_lower_case_name():
    request = boto_signed(headers=[("Content-Type", "text/csv")])
    by_name = {name.lower(): value for name, value in request["headers"]}
    assert check({**request, "headers": by_name}) == check(request)
    with pytest.raises(errors.InvalidSignature):
        check({**request, "headers": {**by_name, b"content-type": b"text/plain"}})


@pytest.mark.parametrize("service", ["sagemaker", "s3"])
def test_our_signature_is_the_one_that_botocore_computes(service):
    theirs = boto_signed(target="/endpoints/demo/invocations?b=2&a=1", service=service)
    ours = sigv4.sign(
        method=b"POST",
        path=theirs["path"],
        query=theirs["query"],
        headers=[HOST],
        payload_sha256=theirs["payload_sha256"],
        access_key=CREDENTIAL.access_key,
        secret_key=CREDENTIAL.secret_key,
        region="us-east-1",
        service=service,
        now_s=NOW_S,
    )
    assert dict(ours)[b"authorization"] == header_of(theirs, b"Authorization")
