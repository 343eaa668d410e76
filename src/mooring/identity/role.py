"""The default role: who the root key is, and what GetCallerIdentity and GetRole say of it. Pure over values.

Clients want an *assumed role* as their identity (SDKs take the role's name out of the ARN) and ask IAM for a role whose
trust policy names SageMaker.
"""

import base64
import hashlib
import json
import urllib.parse
from dataclasses import dataclass
from datetime import UTC, datetime

from mooring.domain.call import Caller, Handler, Params
from mooring.domain.errors import ServiceError
from mooring.domain.ids import Arn, Scope, partition_of

ROLE_NAME = "MooringExecutionRole"
SESSION_NAME = "mooring"


class NoSuchEntity(ServiceError):
    """IAM's answer for what is not there (HTTP 404)."""

    code = "NoSuchEntity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """An IAM role."""

    name: str
    arn: Arn
    id: str
    created_at_s: float  # epoch


def default_role(scope: Scope, *, created_at_s: float) -> Role:
    """The role every data directory has."""
    return Role(
        name=ROLE_NAME,
        arn=Arn(f"arn:{partition_of(scope.region)}:iam::{scope.account}:role/{ROLE_NAME}"),
        id=_role_id(scope),
        created_at_s=created_at_s,
    )


def root_arn(scope: Scope) -> Arn:
    """Identity of a caller with the root key."""
    return Arn(f"arn:{partition_of(scope.region)}:sts::{scope.account}:assumed-role/{ROLE_NAME}/{SESSION_NAME}")


def _role_id(scope: Scope) -> str:
    """An id of IAM's form (AROA and 17 of A-Z2-7) that stays the same for an account."""
    digest = hashlib.sha256(f"{scope.account}/{ROLE_NAME}".encode()).digest()
    return "AROA" + base64.b32encode(digest).decode()[:17]


def caller_identity(caller: Caller) -> Params:
    """Members of GetCallerIdentity's answer."""
    user_id = f"{_role_id(caller.scope)}:{SESSION_NAME}" if caller.arn == root_arn(caller.scope) else caller.access_key
    return {"UserId": user_id, "Account": caller.scope.account, "Arn": caller.arn}


def trust_policy(scope: Scope) -> str:
    """Who may assume the default role: SageMaker, and the account itself."""
    partition = partition_of(scope.region)
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sagemaker.amazonaws.com", "AWS": f"arn:{partition}:iam::{scope.account}:root"},
        "Action": "sts:AssumeRole",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, separators=(",", ":"))


def describe_role(scope: Scope, role: Role) -> Params:
    """Members of IAM's Role shape; the policy document is URL-encoded, as IAM sends it."""
    return {
        "Path": "/",
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": role.arn,
        "CreateDate": datetime.fromtimestamp(int(role.created_at_s), UTC),
        "AssumeRolePolicyDocument": urllib.parse.quote(trust_policy(scope), safe=""),
        "Description": "What models run as where no other role is given.",
        "MaxSessionDuration": 3600,
    }


def get_role(scope: Scope, name: str, *, created_at_s: float) -> Params:
    """Members of GetRole's answer. Raises NoSuchEntity."""
    if name != ROLE_NAME:
        raise NoSuchEntity(f"The role with name {name} cannot be found.")
    return {"Role": describe_role(scope, default_role(scope, created_at_s=created_at_s))}


def sts_handlers() -> dict[str, Handler]:
    """Operation name → handler."""

    async def get_caller_identity(caller: Caller, params: Params) -> Params:  # it has no members
        return caller_identity(caller)

    return {"GetCallerIdentity": get_caller_identity}


def iam_handlers(*, created_at_s: float) -> dict[str, Handler]:
    """Operation name → handler. `created_at_s`: when the data directory was made."""

    async def handle_get_role(caller: Caller, params: Params) -> Params:
        return get_role(caller.scope, params["RoleName"], created_at_s=created_at_s)

    return {"GetRole": handle_get_role}
