"""Plain boto3 against the API: operations, lists, tags, in the service's own words."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.integration.api_server import ARN, DATA, ROLE, ApiServer, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def sm(server: ApiServer) -> Iterator[Any]:
    client = server.client("sagemaker")
    yield client
    client.close()


def refusal(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response["Error"]
    return f"{error['Code']}: {error['Message']}"


def a_variant(name: str = "v", **members: Any) -> dict[str, Any]:
    base = {"VariantName": name, "ModelName": "Demo", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    return {**base, **members}


def make_model(sm: Any, name: str = "Demo", **members: Any) -> None:
    sm.create_model(ModelName=name, PrimaryContainer={"Image": "img", "ModelDataUrl": DATA}, **members)


def make_endpoint(sm: Any, name: str = "Ep") -> None:
    make_model(sm)
    sm.create_endpoint_config(EndpointConfigName="conf", ProductionVariants=[a_variant()])
    sm.create_endpoint(EndpointName=name, EndpointConfigName="conf")


@pytest.mark.shows(
    "CreateModel.ModelName", "DescribeModel.ModelName", "DeleteModel.ModelName", "CreateModel.ExecutionRoleArn"
)
@pytest.mark.shows(
    "CreateModel->ModelArn",
    "DescribeModel->PrimaryContainer.Image",
    "DescribeModel->PrimaryContainer.ModelDataUrl",
    "DescribeModel->PrimaryContainer.Environment",
    "DescribeModel->PrimaryContainer.Mode",
    "DescribeModel->ExecutionRoleArn",
)
def test_a_model_from_creation_to_deletion(sm: Any) -> None:
    container = {"Image": "img:1", "ModelDataUrl": DATA, "Environment": {"A": "1"}}
    made = sm.create_model(ModelName="Demo", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    assert made["ModelArn"] == ARN + "model/demo"
    described = sm.describe_model(ModelName="Demo")
    assert described["PrimaryContainer"] == {**container, "Mode": "SingleModel"}
    assert described["ExecutionRoleArn"] == ROLE
    assert "Containers" not in described
    assert "VpcConfig" not in described
    assert sm.delete_model(ModelName="Demo")["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert refusal(sm.describe_model, ModelName="Demo") == (
        f'ValidationException: Could not find model "{ARN}model/demo".'
    )


@pytest.mark.shows(
    "DescribeEndpoint->EndpointStatus",
    "DescribeEndpoint->ProductionVariants[].VariantName",
    "DescribeEndpoint->ProductionVariants[].CurrentWeight",
    "DescribeEndpoint->ProductionVariants[].DesiredWeight",
    "DescribeEndpoint->ProductionVariants[].CurrentInstanceCount",
    "DescribeEndpoint->ProductionVariants[].DesiredInstanceCount",
    "DeleteEndpoint.EndpointName",
)
def test_an_endpoint_from_creation_to_deletion_with_the_waiters(server: ApiServer, sm: Any) -> None:
    make_endpoint(sm)
    assert sm.describe_endpoint(EndpointName="Ep")["EndpointStatus"] == "Creating"
    busy = f'ValidationException: Cannot update in-progress endpoint "{ARN}endpoint/ep".'
    assert refusal(sm.update_endpoint, EndpointName="Ep", EndpointConfigName="conf") == busy
    server.conclude("Ep")
    sm.get_waiter("endpoint_in_service").wait(EndpointName="Ep", WaiterConfig={"Delay": 1, "MaxAttempts": 2})
    described = sm.describe_endpoint(EndpointName="Ep")
    assert described["ProductionVariants"] == [
        {
            "VariantName": "v",
            "CurrentWeight": 1.0,
            "DesiredWeight": 1.0,
            "CurrentInstanceCount": 1,
            "DesiredInstanceCount": 1,
        }
    ]
    sm.delete_endpoint(EndpointName="Ep")
    assert sm.describe_endpoint(EndpointName="Ep")["EndpointStatus"] == "Deleting"
    server.conclude("Ep")
    sm.get_waiter("endpoint_deleted").wait(EndpointName="Ep", WaiterConfig={"Delay": 1, "MaxAttempts": 2})


@pytest.mark.shows(
    "UpdateEndpoint.EndpointName",
    "UpdateEndpoint.EndpointConfigName",
    "DescribeEndpoint.EndpointName",
    "CreateEndpoint.EndpointName",
    "CreateEndpoint.EndpointConfigName",
    "CreateEndpointConfig.EndpointConfigName",
    "CreateEndpointConfig.ProductionVariants",
    "CreateEndpointConfig.ProductionVariants[].VariantName",
    "CreateEndpointConfig.ProductionVariants[].ModelName",
    "CreateEndpointConfig.ProductionVariants[].InitialVariantWeight",
    "CreateEndpointConfig.ProductionVariants[].InitialInstanceCount",
)
@pytest.mark.shows(
    "DescribeEndpoint->EndpointConfigName", "DescribeEndpoint->PendingDeploymentSummary.EndpointConfigName"
)
def test_an_update_takes_the_endpoint_to_another_config(server: ApiServer, sm: Any) -> None:
    make_endpoint(sm)
    server.conclude("Ep")
    second = a_variant("w", InitialVariantWeight=0.5, InitialInstanceCount=2)
    sm.create_endpoint_config(EndpointConfigName="Second", ProductionVariants=[second])
    sm.update_endpoint(EndpointName="Ep", EndpointConfigName="Second")
    described = sm.describe_endpoint(EndpointName="Ep")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("Updating", "conf")
    assert described["PendingDeploymentSummary"]["EndpointConfigName"] == "Second"
    server.conclude("Ep")
    described = sm.describe_endpoint(EndpointName="Ep")
    assert (described["EndpointStatus"], described["EndpointConfigName"]) == ("InService", "Second")
    (shown,) = described["ProductionVariants"]
    assert (shown["VariantName"], shown["CurrentWeight"], shown["CurrentInstanceCount"]) == ("w", 0.5, 2)


@pytest.mark.shows(
    "UpdateEndpointWeightsAndCapacities.EndpointName",
    "UpdateEndpointWeightsAndCapacities.DesiredWeightsAndCapacities",
    "UpdateEndpointWeightsAndCapacities.DesiredWeightsAndCapacities[].VariantName",
    "UpdateEndpointWeightsAndCapacities.DesiredWeightsAndCapacities[].DesiredWeight",
    "UpdateEndpointWeightsAndCapacities.DesiredWeightsAndCapacities[].DesiredInstanceCount",
)
def test_weights_and_counts_come_into_force(server: ApiServer, sm: Any) -> None:
    make_model(sm)
    sm.create_endpoint_config(EndpointConfigName="conf", ProductionVariants=[a_variant("a"), a_variant("b")])
    sm.create_endpoint(EndpointName="Ep", EndpointConfigName="conf")
    server.conclude("Ep")
    wish = {"VariantName": "b", "DesiredWeight": 3.0, "DesiredInstanceCount": 2}
    sm.update_endpoint_weights_and_capacities(EndpointName="Ep", DesiredWeightsAndCapacities=[wish])
    server.conclude("Ep")
    a, b = sm.describe_endpoint(EndpointName="Ep")["ProductionVariants"]
    assert (a["CurrentWeight"], a["CurrentInstanceCount"]) == (1.0, 1)
    assert (b["CurrentWeight"], b["CurrentInstanceCount"]) == (3.0, 2)


def test_tools_recognise_duplicates_and_what_is_missing(sm: Any) -> None:
    make_endpoint(sm)
    image = {"Image": "img"}
    assert refusal(sm.create_model, ModelName="Demo", PrimaryContainer=image) == (
        f'ValidationException: Cannot create already existing model "{ARN}model/demo".'
    )
    assert refusal(sm.create_endpoint_config, EndpointConfigName="conf", ProductionVariants=[a_variant()]) == (
        f'ValidationException: Cannot create already existing endpoint configuration "{ARN}endpoint-config/conf".'
    )
    assert refusal(sm.create_endpoint, EndpointName="ep", EndpointConfigName="conf") == (
        f'ValidationException: Cannot create already existing endpoint "{ARN}endpoint/ep".'
    )
    assert refusal(sm.delete_endpoint, EndpointName="None") == (
        f'ValidationException: Could not find endpoint "{ARN}endpoint/none".'
    )
    gone = {"Image": "img", "ModelDataUrl": "s3://models/none.tar.gz"}
    assert refusal(sm.create_model, ModelName="x", PrimaryContainer=gone) == (
        "ValidationException: Could not find model data at s3://models/none.tar.gz."
    )


def test_members_that_are_not_done_yet_are_refused_by_name(sm: Any) -> None:
    make_model(sm)
    text = refusal(
        sm.create_model,
        ModelName="x",
        PrimaryContainer={"Image": "img", "MultiModelConfig": {"ModelCacheSetting": "Enabled"}},
        VpcConfig={"SecurityGroupIds": ["sg"], "Subnets": ["s"]},
    )
    assert text.startswith("ValidationException: ")
    assert "'PrimaryContainer.MultiModelConfig" in text
    assert "'VpcConfig" in text
    assert "docs/coverage.md#createmodel" in text
    text = refusal(sm.create_model, ModelName="x", PrimaryContainer={"Image": "img", "Mode": "MultiModel"})
    assert "'MultiModel' of member 'PrimaryContainer.Mode'" in text
    text = refusal(sm.create_model, ModelName="x", PrimaryContainer={"Image": "i"}, EnableNetworkIsolation=True)
    assert "'True' of member 'EnableNetworkIsolation'" in text
    sm.create_model(ModelName="x", PrimaryContainer={"Image": "i"}, EnableNetworkIsolation=False)
    serverless = {
        "VariantName": "v",
        "ModelName": "Demo",
        "ServerlessConfig": {"MemorySizeInMB": 1024, "MaxConcurrency": 1},
    }
    text = refusal(sm.create_endpoint_config, EndpointConfigName="c", ProductionVariants=[serverless])
    assert "'ProductionVariants.ServerlessConfig" in text
    text = refusal(sm.update_endpoint, EndpointName="e", EndpointConfigName="c", RetainAllVariantProperties=True)
    assert "'RetainAllVariantProperties'" in text


def test_constraints_of_the_model_come_before_everything(sm: Any) -> None:
    assert refusal(sm.create_model, ModelName="-bad-", PrimaryContainer={"Image": "a b"}).startswith(
        "ValidationException: 2 validation errors detected: Value '-bad-' at 'modelName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: "
    )
    assert "'maxResults' failed to satisfy constraint: Member must have value less than or equal to 100" in refusal(
        sm.list_models, MaxResults=500
    )


def test_operations_that_are_not_offered_are_named(sm: Any) -> None:
    assert refusal(sm.list_training_jobs) == (
        "UnknownOperationException: The operation ListTrainingJobs of sagemaker is not offered by this server: "
        "see docs/coverage.md#listtrainingjobs."
    )


@pytest.mark.shows(
    "ListModels.SortBy",
    "ListModels.SortOrder",
    "ListModels.NextToken",
    "ListModels.MaxResults",
    "ListModels.NameContains",
)
@pytest.mark.shows("ListModels->Models[].ModelName", "ListModels->NextToken")
def test_models_are_listed_by_pages_filters_and_order(sm: Any) -> None:
    for number in (3, 1, 2):
        make_model(sm, f"m{number}")
    make_model(sm, "other")
    paginator = sm.get_paginator("list_models")
    pages = list(
        paginator.paginate(NameContains="m", SortBy="Name", SortOrder="Ascending", PaginationConfig={"PageSize": 2})
    )
    assert [[row["ModelName"] for row in page["Models"]] for page in pages] == [["m1", "m2"], ["m3"]]
    assert set(pages[0]["Models"][0]) == {"ModelName", "ModelArn", "CreationTime"}
    token = sm.list_models(MaxResults=1)["NextToken"]
    assert refusal(sm.list_models, NextToken=token, SortBy="Name").startswith(
        "ValidationException: Invalid pagination token"
    )
    assert refusal(sm.list_models, NextToken="made-up").startswith("ValidationException: Invalid pagination token")


@pytest.mark.shows("ListModels.CreationTimeAfter", "ListModels.CreationTimeBefore")
@pytest.mark.shows("DescribeModel->CreationTime")
def test_models_are_listed_by_creation_time(sm: Any) -> None:
    for name in ("a", "b", "c"):
        make_model(sm, name)
    moment = sm.describe_model(ModelName="b")["CreationTime"]
    after = [row["ModelName"] for row in sm.list_models(CreationTimeAfter=moment)["Models"]]
    before = [row["ModelName"] for row in sm.list_models(CreationTimeBefore=moment)["Models"]]
    assert "b" in after
    assert "a" not in after
    assert "b" not in before
    assert "c" not in before


@pytest.mark.shows(
    "ListEndpointConfigs.SortBy",
    "ListEndpointConfigs.SortOrder",
    "ListEndpointConfigs.NextToken",
    "ListEndpointConfigs.MaxResults",
    "ListEndpointConfigs.NameContains",
    "DescribeEndpointConfig.EndpointConfigName",
    "DeleteEndpointConfig.EndpointConfigName",
)
@pytest.mark.shows(
    "ListEndpointConfigs->EndpointConfigs[].EndpointConfigName",
    "ListEndpointConfigs->NextToken",
    "DescribeEndpointConfig->ProductionVariants[].VariantName",
    "DescribeEndpointConfig->ProductionVariants[].ModelName",
    "DescribeEndpointConfig->ProductionVariants[].InstanceType",
    "DescribeEndpointConfig->ProductionVariants[].InitialInstanceCount",
    "DescribeEndpointConfig->ProductionVariants[].InitialVariantWeight",
)
def test_endpoint_configs_are_listed_described_and_deleted(sm: Any) -> None:
    make_model(sm)
    for name in ("c2", "c3", "c1", "x"):
        sm.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[a_variant()])
    asked = {"NameContains": "c", "SortBy": "Name", "SortOrder": "Ascending", "MaxResults": 2}
    first = sm.list_endpoint_configs(**asked)
    assert [row["EndpointConfigName"] for row in first["EndpointConfigs"]] == ["c1", "c2"]
    second = sm.list_endpoint_configs(**asked, NextToken=first["NextToken"])
    assert [row["EndpointConfigName"] for row in second["EndpointConfigs"]] == ["c3"]
    assert "NextToken" not in second
    described = sm.describe_endpoint_config(EndpointConfigName="c1")
    assert described["ProductionVariants"] == [a_variant(InitialVariantWeight=1.0)]
    sm.delete_endpoint_config(EndpointConfigName="c1")
    assert "Could not find endpoint configuration" in refusal(sm.describe_endpoint_config, EndpointConfigName="c1")


@pytest.mark.shows(
    "ListEndpoints.SortBy",
    "ListEndpoints.SortOrder",
    "ListEndpoints.NextToken",
    "ListEndpoints.MaxResults",
    "ListEndpoints.NameContains",
    "ListEndpoints.StatusEquals",
    "ListEndpoints.LastModifiedTimeAfter",
    "ListEndpoints.LastModifiedTimeBefore",
    "ListEndpoints.CreationTimeAfter",
    "ListEndpoints.CreationTimeBefore",
)
@pytest.mark.shows(
    "ListEndpoints->Endpoints[].EndpointName",
    "ListEndpoints->NextToken",
    "DescribeEndpoint->CreationTime",
    "DescribeEndpoint->LastModifiedTime",
)
def test_endpoints_are_listed_by_pages_filters_and_order(server: ApiServer, sm: Any) -> None:
    make_endpoint(sm, "e2")
    for name in ("e3", "x", "e1"):
        sm.create_endpoint(EndpointName=name, EndpointConfigName="conf")
    server.conclude("e3")
    server.conclude("e1")

    def names(**members: Any) -> list[str]:
        return [row["EndpointName"] for row in sm.list_endpoints(**members)["Endpoints"]]

    asked = {"NameContains": "e", "SortBy": "Name", "SortOrder": "Ascending"}
    first = sm.list_endpoints(**asked, MaxResults=2)
    assert [row["EndpointName"] for row in first["Endpoints"]] == ["e1", "e2"]
    assert names(**asked, NextToken=first["NextToken"]) == ["e3"]
    assert names(StatusEquals="InService", SortBy="Name", SortOrder="Ascending") == ["e1", "e3"]
    created = sm.describe_endpoint(EndpointName="x")["CreationTime"]
    modified = sm.describe_endpoint(EndpointName="e3")["LastModifiedTime"]
    assert "x" in names(CreationTimeAfter=created)
    assert "e2" not in names(CreationTimeAfter=created)
    assert "e2" in names(CreationTimeBefore=created)
    assert "x" not in names(CreationTimeBefore=created)
    assert set(names(LastModifiedTimeAfter=modified)) == {"e3", "e1"}
    assert set(names(LastModifiedTimeBefore=modified)) == {"e2", "x"}


@pytest.mark.shows(
    "AddTags.ResourceArn",
    "AddTags.Tags",
    "AddTags.Tags[].Key",
    "AddTags.Tags[].Value",
    "ListTags.ResourceArn",
    "DeleteTags.ResourceArn",
    "DeleteTags.TagKeys",
    "CreateModel.Tags",
    "CreateModel.Tags[].Key",
    "CreateModel.Tags[].Value",
)
@pytest.mark.shows("AddTags->Tags[].Key", "AddTags->Tags[].Value", "ListTags->Tags[].Key", "ListTags->Tags[].Value")
def test_tags_of_a_model(sm: Any) -> None:
    arn = ARN + "model/Demo"
    make_model(sm, Tags=[{"Key": "a", "Value": "1"}])
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "1"}]
    both = [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}]
    assert sm.add_tags(ResourceArn=arn, Tags=both)["Tags"] == both
    sm.delete_tags(ResourceArn=arn, TagKeys=["a"])
    assert sm.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": ""}]
    assert refusal(sm.list_tags, ResourceArn=ARN + "model/none") == "ValidationException: Resource does not exist."


@pytest.mark.shows(
    "CreateEndpoint.Tags",
    "CreateEndpoint.Tags[].Key",
    "CreateEndpoint.Tags[].Value",
    "CreateEndpointConfig.Tags",
    "CreateEndpointConfig.Tags[].Key",
    "CreateEndpointConfig.Tags[].Value",
)
def test_tags_of_configs_and_endpoints(sm: Any) -> None:
    tags = [{"Key": "team", "Value": "x"}]
    make_model(sm)
    sm.create_endpoint_config(EndpointConfigName="conf", ProductionVariants=[a_variant()], Tags=tags)
    sm.create_endpoint(EndpointName="Ep", EndpointConfigName="conf", Tags=tags)
    assert sm.list_tags(ResourceArn=ARN + "endpoint-config/conf")["Tags"] == tags
    assert sm.list_tags(ResourceArn=ARN + "endpoint/ep")["Tags"] == tags


@pytest.mark.shows("ListTags.NextToken")
def test_a_page_of_tags_holds_all_that_a_resource_can_have(sm: Any) -> None:
    arn = ARN + "model/demo"
    make_model(sm, Tags=[{"Key": f"k{n:02}", "Value": ""} for n in range(50)])
    assert len(sm.list_tags(ResourceArn=arn, MaxResults=50)["Tags"]) == 50
    assert "Invalid pagination token" in refusal(sm.list_tags, ResourceArn=arn, NextToken="x")


def test_thirty_two_clients_at_once_read_their_own_writes(server: ApiServer) -> None:
    clients = threading.local()
    opened: list[Any] = []
    lock = threading.Lock()

    def one(number: int) -> None:
        if not hasattr(clients, "sm"):
            with lock:  # making clients is not thread-safe in boto3
                clients.sm = server.client("sagemaker")
                opened.append(clients.sm)
        sm = clients.sm
        name = f"m-{number}"
        make_model(sm, name)
        assert sm.describe_model(ModelName=name)["ModelName"] == name
        assert [row["ModelName"] for row in sm.list_models(NameContains=name, MaxResults=1)["Models"]]
        sm.delete_model(ModelName=name)
        assert "Could not find model" in refusal(sm.describe_model, ModelName=name)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(64)))
    for client in opened:
        client.close()
