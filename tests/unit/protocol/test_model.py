"""Operations by name and by target; those that are not offered are refused by name."""

import subprocess
import sys

import pytest

from mooring.domain import errors
from mooring.protocol import model
from mooring.protocol.offered import OFFERED


def test_every_operation_on_offer_is_in_awss_model():
    for service, names in OFFERED.items():
        loaded = model.load(service)
        assert loaded.offered <= loaded.modelled
        for name in names:
            operation = loaded.operation(name)
            assert (operation.name, operation.service, operation.uri) == (name, service, "/")


def test_an_operation_is_found_by_its_target():
    assert model.operation_of_target("SageMaker.CreateModel") is model.load("sagemaker").operation("CreateModel")
    assert model.operation_of_target("Logs_20140328.GetLogEvents").service == "logs"


def test_shapes_carry_what_constraints_need():
    shape = model.load("sagemaker").operation("CreateEndpointConfig").input
    variants = shape.members["ProductionVariants"]
    assert variants.required
    assert (variants.shape.kind, variants.shape.min, variants.shape.max) == ("list", 1, 10)
    name = variants.shape.inner().shape.members["VariantName"]
    assert (name.required, name.shape.max, name.shape.pattern) == (True, 63, "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


def test_an_operation_that_aws_has_and_we_have_not_is_named_with_the_page_that_says_why():
    with pytest.raises(errors.UnknownOperationException) as caught:
        model.operation_of_target("SageMaker.CreateTrainingJob")
    assert "CreateTrainingJob" in str(caught.value)
    assert "docs/coverage.md#createtrainingjob" in str(caught.value)


@pytest.mark.parametrize("target", ["SageMaker.Nonsense", "Nonsense.CreateModel", "", "SageMaker", "SageMaker."])
def test_an_operation_that_nobody_has_is_unknown(target):
    with pytest.raises(errors.UnknownOperationException):
        model.operation_of_target(target)
    with pytest.raises(
        errors.UnknownOperationException, match="Could not find operation Nonsense for version 2011-06-15"
    ):
        model.load("sts").operation("Nonsense")


def test_only_services_on_offer_are_loaded():
    with pytest.raises(KeyError):
        model.load("ec2")


@pytest.mark.parametrize("module", ["sigv4", "awschunked", "runtime", "forms", "constraints", "offered", "support"])
def test_what_the_edge_imports_never_brings_botocore(module):
    code = f"import sys, mooring.protocol.{module}; sys.exit(any(name.startswith('boto') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
