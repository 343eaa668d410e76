"""What is in an instance's environment."""

from mooring.domain.ids import InstanceId, PoolId, Scope
from mooring.domain.instance import InstanceSpec, Limits
from mooring.runtime import recipes

URL = "http://127.0.0.1:4747"


def spec(**environment: str) -> InstanceSpec:
    return InstanceSpec(
        instance_id=InstanceId("i-1"),
        pool_id=PoolId("pool"),
        scope=Scope(account="000000000000", region="eu-west-3"),
        owner="endpoint/test",
        image="mooring-python",
        environment=environment,
        model_data_url=None,
        limits=Limits(vcpu=1, memory_bytes=1 << 30, pids=100, tmp_bytes=1 << 20),
        log_group="group",
        log_stream="stream",
    )


def test_a_container_finds_aws_at_its_server() -> None:
    got = recipes._base_environment(spec(), "/env/bin", URL)
    assert (got["AWS_ENDPOINT_URL"], got["AWS_REGION"], got["AWS_DEFAULT_REGION"]) == (URL, "eu-west-3", "eu-west-3")
    assert not [name for name in got if "KEY" in name or "TOKEN" in name or "CREDENTIALS" in name]


def test_what_the_user_set_stands() -> None:
    own = {"AWS_ENDPOINT_URL": "https://aws.example", "AWS_REGION": "us-west-2", "AWS_DEFAULT_REGION": "us-west-1"}
    got = recipes._base_environment(spec(**own), "/env/bin", URL)
    assert own.items() <= got.items()


def test_no_endpoint_is_named_where_there_is_no_server() -> None:
    assert "AWS_ENDPOINT_URL" not in recipes._base_environment(spec(), "/env/bin", "")
