"""What a request says about encryption at rest → how a body is sealed, and what replies say of it. Pure, but asks the
key ring.

"AES256" seals under the storage's own key, "aws:kms" under a KMS key: the default one, or the one that is named. Customer
keys (SSE-C) are not here and refused by name before this is asked.
"""

import base64
import binascii
import json
from collections.abc import Mapping

from mooring.domain.ids import Scope, partition_of
from mooring.objects.errors import S3Error, invalid_argument, not_implemented
from mooring.objects.keys import DEFAULT_ALIAS, S3_MANAGED, KeyRing
from mooring.objects.records import Encryption

HEADER = "x-amz-server-side-encryption"
KEY_HEADER = f"{HEADER}-aws-kms-key-id"
CONTEXT_HEADER = f"{HEADER}-context"
_BUCKET_KEY_HEADER = f"{HEADER}-bucket-key-enabled"
_MAX_CONTEXT_BYTES = 8192


def encryption_of(headers: Mapping[str, str], keys: KeyRing, scope: Scope) -> Encryption | None:
    """How a write's body is to be sealed; None: kept as it is.

    Raises InvalidArgument, KMS.NotFoundException, NotImplemented.
    """
    mode = headers.get(HEADER)
    _check_bucket_key(headers.get(_BUCKET_KEY_HEADER, "false"))
    if mode == "aws:kms":
        return Encryption(
            mode=mode, key=_key_of(headers.get(KEY_HEADER, ""), keys, scope), context=_context_of(headers)
        )
    if KEY_HEADER in headers or CONTEXT_HEADER in headers:
        raise invalid_argument(
            HEADER,
            mode or "null",
            "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms",
        )
    if mode is None:
        return None
    if mode == "aws:kms:dsse":
        raise not_implemented(f"{HEADER}: {mode}")
    if mode != "AES256":
        raise invalid_argument(HEADER, mode, "The encryption method specified is not supported")
    return Encryption(mode=mode, key=S3_MANAGED)


def _check_bucket_key(value: str) -> None:
    """Each body has a data key wrapped for itself: that there is no bucket key is true, that there is one never."""
    if value.lower() not in ("true", "false"):
        raise invalid_argument(_BUCKET_KEY_HEADER, value, "Value for BucketKeyEnabled is invalid.")
    if value.lower() == "true":
        raise not_implemented(f"{_BUCKET_KEY_HEADER}: true")


def _key_of(key_id: str, keys: KeyRing, scope: Scope) -> str:
    arn = keys.resolve(key_id or DEFAULT_ALIAS)
    if arn is None:
        raise S3Error("KMS.NotFoundException", _not_found(key_id, scope))
    return arn


def _not_found(key_id: str, scope: Scope) -> str:
    """As KMS words it, by what the id looks like."""
    prefix = f"arn:{partition_of(scope.region)}:kms:{scope.region}:{scope.account}:"
    full = key_id if key_id.startswith("arn:") else prefix + key_id
    if full.partition(":alias/")[1]:
        return f"Alias {full} is not found."
    if full.partition(":key/")[1]:
        return f"Key '{full}' does not exist"
    return f"Invalid keyId '{key_id}'"


def _context_of(headers: Mapping[str, str]) -> str:
    """The encryption context in one form for equal contexts; "" for none."""
    value = headers.get(CONTEXT_HEADER)
    if value is None:
        return ""
    try:
        decoded = base64.b64decode(value, validate=True)
        found = json.loads(decoded)
    except (binascii.Error, ValueError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _invalid_context(value) from error
    strings = isinstance(found, dict) and all(isinstance(one, str) for one in found.values())
    if not strings or len(decoded) > _MAX_CONTEXT_BYTES:
        raise _invalid_context(value)
    return json.dumps(found, sort_keys=True, separators=(",", ":")) if found else ""


def _invalid_context(value: str) -> S3Error:
    return invalid_argument(
        CONTEXT_HEADER,
        value,
        "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string holding JSON which "
        "represents a string-string map",
    )


def response_headers(encryption: Encryption | None) -> dict[str, str]:
    """What replies about an object, an upload or a part say."""
    if encryption is None:
        return {}
    headers = {HEADER: encryption.mode}
    if encryption.mode == "aws:kms":
        headers[KEY_HEADER] = encryption.key
    return headers


def written_headers(encryption: Encryption | None) -> dict[str, str]:
    """As `response_headers`; replies to PutObject, CopyObject and CreateMultipartUpload repeat the context too."""
    headers = response_headers(encryption)
    if encryption is not None and encryption.context:
        headers[CONTEXT_HEADER] = base64.b64encode(encryption.context.encode()).decode("ascii")
    return headers


def etag_of(md5: str, encryption: Encryption | None, chance: str) -> str:
    """An object's ETag: the MD5 of its bytes, but of no meaning under aws:kms (API_Object), where it would tell of them."""
    return chance if encryption is not None and encryption.mode == "aws:kms" else md5
