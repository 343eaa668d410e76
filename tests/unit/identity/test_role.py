"""Who a caller is, and the default role as STS and IAM show it."""

import json
import urllib.parse

import pytest

from mooring.domain.call import Caller
from mooring.domain.ids import Scope
from mooring.identity import role

SCOPE = Scope(account="123456789012", region="us-east-1")


def caller(arn: str) -> Caller:
    return Caller(scope=SCOPE, access_key="MOORXXXXXXXXXXXXXXXX", arn=arn, request_id="r")


async def test_the_root_key_is_an_assumed_role_of_the_account() -> None:
    answer = await role.sts_handlers()["GetCallerIdentity"](caller(role.root_arn(SCOPE)), {})
    assert answer["Arn"] == "arn:aws:sts::123456789012:assumed-role/MooringExecutionRole/mooring"
    assert answer["Account"] == "123456789012"
    unique, session = answer["UserId"].split(":")
    assert unique.startswith("AROA")
    assert len(unique) == 21
    assert session == "mooring"


async def test_the_default_role_is_described_with_a_trust_policy_for_sagemaker() -> None:
    answer = await role.iam_handlers(created_at_s=1_700_000_000.5)["GetRole"](
        caller(role.root_arn(SCOPE)), {"RoleName": "MooringExecutionRole"}
    )
    found = answer["Role"]
    assert found["Arn"] == "arn:aws:iam::123456789012:role/MooringExecutionRole"
    assert found["CreateDate"].timestamp() == 1_700_000_000
    document = found["AssumeRolePolicyDocument"]
    assert " " not in document
    assert "{" not in document
    (statement,) = json.loads(urllib.parse.unquote(document))["Statement"]
    assert statement["Principal"]["Service"] == "sagemaker.amazonaws.com"
    assert statement["Action"] == "sts:AssumeRole"


async def test_the_role_id_is_the_one_in_the_callers_user_id() -> None:
    described = role.describe_role(SCOPE, role.default_role(SCOPE, created_at_s=0))
    assert role.caller_identity(caller(role.root_arn(SCOPE)))["UserId"].split(":")[0] == described["RoleId"]


async def test_another_role_is_not_there() -> None:
    with pytest.raises(role.NoSuchEntity, match="The role with name Other cannot be found"):
        role.get_role(SCOPE, "Other", created_at_s=0)


def test_partitions_of_other_regions_are_kept() -> None:
    scope = Scope(account="123456789012", region="cn-north-1")
    assert role.root_arn(scope).startswith("arn:aws-cn:sts::")
