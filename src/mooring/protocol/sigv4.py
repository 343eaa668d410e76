"""AWS Signature Version 4: reads, checks and makes header signatures.

Called by the edge (hot: every invocation), the control process's API, the S3 process and, for signing, by tests and our
own clients. Bytes in and out, no clock, no I/O. It must not know botocore, HTTP servers or which operations exist.

    head ──check_head──▶ Head (key, scope, date, signed headers are right) ──finish(payload hash)──▶ Identity
                                  │                                            signature is right
                                  └─ head.payload tells S3 how the body is guarded

What can be refused before a body is read is refused by `check_head`; `finish` needs the body's digest unless the client
declared it (`x-amz-content-sha256`, always on S3). Source: "AWS Signature Version 4 for API requests" in the IAM User
Guide; texts of the refusals as AWS sends them.
"""

import hmac
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from mooring.domain import errors
from mooring.domain.routing import Credential
from mooring.protocol import canonical

if TYPE_CHECKING:
    from hashlib import _Hash as Digest

ALGORITHM = b"AWS4-HMAC-SHA256"
MAX_SKEW_S = 15 * 60
EMPTY_SHA256 = sha256(b"").hexdigest()

UNSIGNED_PAYLOAD = b"UNSIGNED-PAYLOAD"
STREAMING_UNSIGNED_TRAILER = b"STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING_SIGNED = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
PAYLOAD_WORDS = frozenset({UNSIGNED_PAYLOAD, STREAMING_UNSIGNED_TRAILER, STREAMING_SIGNED, STREAMING_SIGNED_TRAILER})

_MAX_AUTHORIZATION_BYTES = 8192
_MAX_KEYS = 256  # derived signing keys that a Verifier keeps: (access key, day, region, service)
_HEX64 = re.compile(rb"[0-9a-f]{64}")
_IPAD = bytes(byte ^ 0x36 for byte in range(256))
_OPAD = bytes(byte ^ 0x5C for byte in range(256))

# Services whose one endpoint signs for a fixed region, whatever the client's region is.
_GLOBAL_SERVICES = frozenset({"iam", "sts"})
_GLOBAL_REGIONS = {"cn-": "cn-north-1", "us-gov-": "us-gov-west-1"}

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_UNKNOWN_CLIENT = "The security token included in the request is invalid."


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """The Authorization header, taken apart. Nothing of it is proved yet: good for picking a route, not for trust."""

    access_key: str
    date: str  # YYYYMMDD
    region: str
    service: str
    signed_headers: tuple[bytes, ...]
    signature: bytes  # as sent, hex
    raw: bytes

    @property
    def scope(self) -> bytes:
        """Credential scope: date/region/service/aws4_request."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who signed. `service` and `region` are the signature's scope."""

    access_key: str
    account: str
    arn: str
    service: str
    region: str


class SigningKey:
    """A derived key with its HMAC already keyed: a signature costs two short SHA-256 runs."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = sha256(block.translate(_IPAD))
        self._outer = sha256(block.translate(_OPAD))

    def sign(self, data: bytes) -> str:
        """Hex HMAC-SHA256 of `data`."""
        return self.end(self.begin(data))

    def begin(self, data: bytes) -> "Digest":
        """The HMAC of what starts with `data`: copy it, update the copy with the rest, and give that to `end`."""
        inner = self._inner.copy()
        inner.update(data)
        return inner

    def end(self, inner: "Digest") -> str:
        """Hex HMAC-SHA256 of all that `inner` was given."""
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


@dataclass(slots=True, kw_only=True)
class Head:
    """A request head that passed `check_head`. `payload` is the x-amz-content-sha256 header (None: not sent), in which
    an S3 caller finds how to check the body. `timestamp`, `scope`, `key` and `signature` seed signed chunks.
    """

    identity: Identity
    payload: bytes | None
    timestamp: bytes
    scope: bytes
    signature: bytes
    key: SigningKey = field(repr=False)
    canonical: tuple[bytes, ...] = field(repr=False)  # canonical requests that we accept, without the payload's line


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """The part of the Authorization header that stays the same for a client's whole day."""

    credential: bytes
    access_key: str
    date: str
    region: str
    service: str
    signed: tuple[bytes, ...]
    signed_line: bytes
    required: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proven:
    """What a known credential gives: who it is, and the signing key."""

    identity: Identity
    key: SigningKey
    scope: bytes


# Reading ------------------------------------------------------------------------------------------------------------
def _incomplete(reason: str) -> errors.IncompleteSignature:
    return errors.IncompleteSignature(reason)


@lru_cache(maxsize=1024)
def _read_scope(prefix: bytes) -> _Scope:
    """Take apart everything of the header but the signature."""
    algorithm, _, rest = prefix.partition(b" ")
    if algorithm != ALGORITHM:
        raise _incomplete(
            f"Unsupported AWS 'algorithm': '{algorithm[:64].decode('ascii', 'replace')}'; use {ALGORITHM.decode()}."
        )
    found: dict[bytes, bytes] = {}
    for part in rest.split(b","):
        name, equals, value = part.strip().partition(b"=")
        if not name and not equals:
            continue
        if not equals:
            raise _incomplete(
                f"'{name[:64].decode('ascii', 'replace')}' not a valid key=value pair (missing equal-sign) in "
                "Authorization header."
            )
        if name in found or name == b"Signature":
            raise _incomplete(f"Authorization header has '{name[:64].decode('ascii', 'replace')}' more than once.")
        found[name] = value
    missing = [name for name in (b"Credential", b"SignedHeaders") if not found.get(name)]
    if missing:
        raise _incomplete(" ".join(f"Authorization header requires '{name.decode()}' parameter." for name in missing))
    return _scope_of(found[b"Credential"], found[b"SignedHeaders"])


def _scope_of(credential: bytes, signed_line: bytes) -> _Scope:
    try:
        # An access key may itself hold slashes; the four parts of the scope may not.
        access_key, date, region, service, terminator = credential.decode("ascii").rsplit("/", 4)
    except ValueError as exc:
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."
        ) from exc
    if terminator != "aws4_request":
        raise _incomplete("Credential should be scoped with a valid terminator: 'aws4_request'.")
    if not (access_key and region and service and len(date) == 8 and date.isdigit()):
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term."
        )
    signed = tuple(signed_line.split(b";"))
    return _Scope(
        credential=credential,
        access_key=access_key,
        date=date,
        region=region,
        service=service,
        signed=signed,
        signed_line=signed_line,
        required=frozenset(signed),
    )


def _split_authorization(value: bytes) -> tuple[_Scope, bytes]:
    """(scope, signature). The signature is last in what every SDK sends; anything else is re-ordered first."""
    if len(value) > _MAX_AUTHORIZATION_BYTES:
        raise _incomplete("Authorization header is too long.")
    at = value.rfind(b"Signature=")
    signature = value[at + 10 :]
    if at < 0 or b"," in signature or b" " in signature:
        value, signature = _pull_signature(value)
    else:
        value = value[:at]
    scope = _read_scope(value)
    if not signature:
        raise _incomplete("Authorization header requires 'Signature' parameter.")
    return scope, signature


def _pull_signature(value: bytes) -> tuple[bytes, bytes]:
    algorithm, _, rest = value.strip().partition(b" ")
    parts = [part.strip() for part in rest.split(b",")]
    signatures = [part[10:] for part in parts if part.startswith(b"Signature=")]
    if len(signatures) > 1:
        raise _incomplete("Authorization header has 'Signature' more than once.")
    others = b", ".join(part for part in parts if not part.startswith(b"Signature="))
    return algorithm + b" " + others, signatures[0] if signatures else b""


def parse_authorization(value: bytes) -> Authorization:
    """Take an Authorization header apart. Raises IncompleteSignature when it is not of Signature V4's form."""
    scope, signature = _split_authorization(value)
    return Authorization(
        access_key=scope.access_key,
        date=scope.date,
        region=scope.region,
        service=scope.service,
        signed_headers=scope.signed,
        signature=signature,
        raw=value,
    )


# Dates ----------------------------------------------------------------------------------------------------------------
def _timestamp(found: Mapping[bytes, bytes], scope: _Scope, now_s: float) -> bytes:
    """The request's own time, proved to be signed, of the scope's day and within the allowed skew."""
    if b"x-amz-date" in found:
        name, stamp = b"x-amz-date", found[b"x-amz-date"].strip()
    elif b"date" in found:
        name, stamp = b"date", found[b"date"]
    else:
        raise _incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    try:
        if name == b"date":
            stamp = canonical.stamp_of_date(stamp)
        at_s = canonical.stamp_s(stamp)
    except ValueError as exc:
        raise _incomplete("Date must be in ISO-8601 'basic format'. See http://en.wikipedia.org/wiki/ISO_8601") from exc
    if name not in scope.required:
        raise errors.InvalidSignature(f"'{_spelled(name)}' must be a 'SignedHeader' in the AWS Authorization.")
    if stamp[:8].decode() != scope.date:
        raise errors.InvalidSignature(
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{scope.date}' != '{stamp[:8].decode()}', from '{stamp.decode()}'."
        )
    if not -MAX_SKEW_S <= now_s - at_s <= MAX_SKEW_S:
        raise _skewed(stamp.decode(), at_s, now_s)
    return stamp


def _skewed(stamp: str, at_s: int, now_s: float) -> errors.RequestExpired:
    now = canonical.format_stamp(now_s)
    if at_s < now_s:
        least = canonical.format_stamp(now_s - MAX_SKEW_S)
        return errors.RequestExpired(f"Signature expired: {stamp} is now earlier than {least} ({now} - 15 min.)")
    most = canonical.format_stamp(now_s + MAX_SKEW_S)
    return errors.RequestExpired(f"Signature not yet current: {stamp} is still later than {most} ({now} + 15 min.)")


def _spelled(name: bytes) -> str:
    return "-".join(word.capitalize() for word in name.decode("ascii", "replace").split("-"))


# Checking -----------------------------------------------------------------------------------------------------------
def signing_regions(service: str, region: str) -> frozenset[str]:
    """Regions a signature for `service` may be scoped to on a server of `region`."""
    if service not in _GLOBAL_SERVICES:
        return frozenset({region})
    for prefix, global_region in _GLOBAL_REGIONS.items():
        if region.startswith(prefix):
            return frozenset({region, global_region})
    return frozenset({region, "us-east-1"})


def derive_key(secret_key: str, date: str, region: str, service: str) -> SigningKey:
    """The signing key of one day, region and service."""
    key = b"AWS4" + secret_key.encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return SigningKey(key)


class Verifier:
    """Checks signatures against a fixed set of credentials. Immutable but for its bounded cache of derived keys; make a
    new one when the credentials change.
    """

    def __init__(self, credentials: Iterable[Credential], region: str) -> None:
        self._credentials = {credential.access_key: credential for credential in credentials}
        self._region = region
        self._proven: dict[bytes, _Proven] = {}

    def verify(
        self,
        *,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: canonical.Headers,
        payload_sha256: str | None,
        now_s: float,
        services: Collection[str],
    ) -> Identity:
        """Check a whole request: `check_head`, then `finish`. Raises an AuthError."""
        head = self.check_head(method=method, path=path, query=query, headers=headers, now_s=now_s, services=services)
        return finish(head, payload_sha256)

    def check_head(
        self,
        *,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: canonical.Headers,
        now_s: float,
        services: Collection[str],
    ) -> Head:
        """Check all that needs no body. `path` and `query` are as on the wire, without the question mark; `services`
        are the signing names that the route takes. Raises an AuthError.
        """
        found = canonical.collect(headers)
        authorization = found.get(b"authorization")
        if authorization is None:
            raise _unsigned(query)
        scope, signature = _split_authorization(authorization)
        if b"x-amz-security-token" in found:
            raise errors.InvalidToken(_UNKNOWN_CLIENT)  # we have issued none
        proven = self._proven.get(scope.credential)
        if proven is None:
            proven = self._prove(scope)
        if scope.service not in services:
            expected = "', '".join(sorted(services))
            raise errors.InvalidSignature(f"Credential should be scoped to correct service: '{expected}'. ")
        timestamp = _timestamp(found, scope, now_s)
        _require_signed(found, scope.required)
        payload = found.get(b"x-amz-content-sha256")
        s3 = scope.service == "s3"
        _check_payload_header(payload, s3=s3)
        tail = b"\n" + canonical.header_lines(scope.signed, found) + b"\n\n" + scope.signed_line + b"\n"
        start = method.upper() + b"\n"
        return Head(
            identity=proven.identity,
            payload=payload,
            timestamp=timestamp,
            scope=proven.scope,
            signature=signature,
            key=proven.key,
            canonical=tuple([start + target + tail for target in canonical.targets(path, query, s3=s3)]),
        )

    def finish(self, head: Head, payload_sha256: str | None) -> Identity:
        """The module's `finish`."""
        return finish(head, payload_sha256)

    def _prove(self, scope: _Scope) -> _Proven:
        credential = self._credentials.get(scope.access_key)
        if credential is None:
            raise errors.UnrecognizedClient(_UNKNOWN_CLIENT)
        if scope.region not in signing_regions(scope.service, self._region):
            raise errors.WrongRegion(
                f"Credential should be scoped to a valid region, not '{scope.region}'. ",
                given=scope.region,
                expected=self._region,
            )
        proven = _Proven(
            identity=Identity(
                access_key=credential.access_key,
                account=credential.account,
                arn=credential.arn,
                service=scope.service,
                region=scope.region,
            ),
            key=derive_key(credential.secret_key, scope.date, scope.region, scope.service),
            scope=scope.credential[len(scope.access_key) + 1 :],
        )
        if len(self._proven) >= _MAX_KEYS:
            self._proven.clear()
        self._proven[scope.credential] = proven
        return proven


def _unsigned(query: bytes) -> errors.AuthError:
    if b"X-Amz-Signature=" in query or b"X-Amz-Algorithm=" in query:
        return errors.PresignedNotOffered("Requests signed in the query string (presigned URLs) are not offered.")
    return errors.MissingAuthenticationToken("Missing Authentication Token")


def _require_signed(found: Mapping[bytes, bytes], signed: frozenset[bytes]) -> None:
    """Host and every x-amz-* header must be signed: an unsigned one could have been added on the way."""
    if b"host" not in signed:
        raise errors.HeadersNotSigned(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.", names=("host",)
        )
    names = [name for name in found if name[:6] == b"x-amz-" and name not in signed]
    if names:
        raise errors.HeadersNotSigned(
            " ".join(f"'{_spelled(name)}' must be a 'SignedHeader' in the AWS Authorization." for name in names),
            names=tuple(name.decode("ascii", "replace") for name in names),
        )


def _check_payload_header(payload: bytes | None, *, s3: bool) -> None:
    if payload is None:
        if s3:
            raise errors.PayloadNotDeclared("Missing required header for this request: x-amz-content-sha256")
        return
    if payload in PAYLOAD_WORDS:
        if not s3:
            raise errors.InvalidSignature(
                "The payload of this request must be signed: x-amz-content-sha256 must be its SHA-256."
            )
    elif not _HEX64.fullmatch(payload):
        raise errors.PayloadNotDeclared(
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
        )


def finish(head: Head, payload_sha256: str | None) -> Identity:
    """Compare the signature. `payload_sha256` is the hex digest of the body as received; None takes the declared one,
    and then (S3) checking the body against `head.payload` is the caller's part. Raises InvalidSignature.
    """
    declared = head.payload
    if payload_sha256 is None:
        if declared is None or head.identity.service != "s3":
            raise ValueError("the digest of the body is needed")
        payload = declared
    else:
        payload = payload_sha256.encode()
        if declared is not None and declared != payload:
            if declared not in PAYLOAD_WORDS:
                raise errors.InvalidSignature(_MISMATCH)
            payload = declared
    start = ALGORITHM + b"\n" + head.timestamp + b"\n" + head.scope + b"\n"
    for request in head.canonical:
        expected = head.key.sign(start + sha256(request + payload).hexdigest().encode())
        if hmac.compare_digest(expected.encode(), head.signature):
            return head.identity
    raise errors.InvalidSignature(_MISMATCH)


class Recurring:
    """A request that is signed again and again and differs only in its time of day and its payload, as clients send them.

    Everything else of it stands in hash states already, so that a signature costs the hashes of what differs. Made of a
    `Head` that was proved; it is as good as `check_head` and `finish` for heads that differ in nothing but the six
    digits of x-amz-date's time, the signature, and what is not signed.
    """

    __slots__ = (
        "_after",
        "_at_s",
        "_before",
        "_clock",
        "_day",
        "_key",
        "_outer",
        "_request",
        "_scope",
        "_text",
        "identity",
    )

    def __init__(self, head: Head, before: bytes, after: bytes) -> None:
        self.identity = head.identity
        self._key = head.key
        self._outer = head.key._outer
        self._day = head.timestamp[:9]  # with the T
        self._scope = b"Z\n" + head.scope + b"\n"
        self._before = before
        self._after = after
        self._clock = b""
        self._at_s = 0
        self._request = self._text = sha256()  # of the canonical request and of the text to sign, up to their last line

    @classmethod
    def of(cls, head: Head) -> "Recurring | None":
        """None for requests that are not as simple as that."""
        if len(head.canonical) != 1 or head.payload is not None:
            return None
        before, found, after = head.canonical[0].partition(b"\nx-amz-date:" + head.timestamp + b"\n")
        if not found:
            return None
        return cls(head, before + found[: 1 + len(b"x-amz-date:") + 9], found[-2:] + after)

    def holds(self, clock: bytes, payload_sha256: str, signature: bytes, now_s: float) -> bool:
        """Whether it is signed by this signature (hex) at `clock`, HHMMSS, and that time is near enough to `now_s`."""
        if clock != self._clock and not self._turn(clock):
            return False
        if not -MAX_SKEW_S <= now_s - self._at_s <= MAX_SKEW_S:
            return False
        request = self._request.copy()
        request.update(payload_sha256.encode())
        text = self._text.copy()
        text.update(request.hexdigest().encode())
        outer = self._outer.copy()
        outer.update(text.digest())
        return hmac.compare_digest(outer.hexdigest().encode(), signature)

    def _turn(self, clock: bytes) -> bool:
        """Take another second; False when there is no such time."""
        stamp = self._day + clock
        try:
            self._at_s = canonical.stamp_s(stamp + b"Z")
        except ValueError:
            return False
        self._request = sha256(self._before + clock + self._after)
        self._text = self._key.begin(ALGORITHM + b"\n" + stamp + self._scope)
        self._clock = clock
        return True


# Signing ------------------------------------------------------------------------------------------------------------
def sign(
    *,
    method: bytes,
    path: bytes,
    query: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    payload_sha256: str,
    access_key: str,
    secret_key: str,
    region: str,
    service: str,
    now_s: float,
) -> list[tuple[bytes, bytes]]:
    """Headers to add to a request so that it is signed; `headers` must hold Host, and all of them are signed.

    `payload_sha256` is a hex digest or, for S3, one of PAYLOAD_WORDS as text.
    """
    stamp = canonical.format_stamp(now_s)
    added = [(b"x-amz-date", stamp.encode())]
    if service == "s3":
        added.append((b"x-amz-content-sha256", payload_sha256.encode()))
    found = canonical.collect([*headers, *added])
    signed = sorted(found)
    signed_line = b";".join(signed)
    target = canonical.targets(path, query, s3=service == "s3")[-1]
    request = b"\n".join(
        [method.upper(), target, canonical.header_lines(signed, found), b"", signed_line, payload_sha256.encode()]
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request".encode()
    to_sign = b"\n".join([ALGORITHM, stamp.encode(), scope, sha256(request).hexdigest().encode()])
    signature = derive_key(secret_key, stamp[:8], region, service).sign(to_sign).encode()
    value = b"%s Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
        ALGORITHM,
        access_key.encode(),
        scope,
        signed_line,
        signature,
    )
    return [*added, (b"authorization", value)]
