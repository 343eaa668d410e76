"""Continuation tokens: where a listing goes on, in a form that callers have no reason to read. Pure."""

import base64
import binascii

from mooring.objects.errors import invalid_argument

_VERSION = b"1"


def encode_token(last: bytes) -> str:
    """The token that goes on behind `last`."""
    return base64.urlsafe_b64encode(_VERSION + last).decode("ascii")


def decode_token(token: str, parameter: str) -> bytes:
    """What `encode_token` was given. Raises InvalidArgument."""
    try:
        data = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        data.decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise _invalid(token, parameter) from error
    if not data.startswith(_VERSION):
        raise _invalid(token, parameter)
    return data[len(_VERSION) :]


def _invalid(token: str, parameter: str) -> Exception:
    return invalid_argument(parameter, token, f"The {parameter.replace('-', ' ')} provided is incorrect")
