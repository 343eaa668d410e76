"""What image names mean."""

import pytest

from mooring.runtime import images
from mooring.runtime.driver import DriverError

ECR = "683313688378.dkr.ecr.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("tag", "version", "python"),
    [
        ("0.20.0-cpu-py3", "0.20.0", "3.7"),
        ("0.23-1-cpu-py3", "0.23.2", "3.8"),
        ("1.0-1-cpu-py3", "1.0.2", "3.8"),
        ("1.2-1-cpu-py3", "1.2.1", "3.9"),
        ("1.2-1", "1.2.1", "3.9"),
        ("1.4-2-cpu-py3", "1.4.2", "3.10"),
        ("1.4-2-py312-cpu-py3", "1.4.2", "3.12"),
    ],
)
def test_scikit_learn_tags_mean_the_versions_of_the_aws_images(tag, version, python):
    request = images.recognise(f"{ECR}/sagemaker-scikit-learn:{tag}")
    assert request is not None
    assert request.family == "sklearn"
    assert request.version == version
    assert request.repository == f"{ECR}/sagemaker-scikit-learn"
    assert request.pythons[0].python == python
    assert f"scikit-learn=={version}" in request.pythons[0].pins


@pytest.mark.parametrize("registry", ["", "localhost:5000/", "mirror.example/team/", f"{ECR}.cn/"])
def test_registry_and_account_do_not_count(registry):
    request = images.recognise(f"{registry}sagemaker-scikit-learn:1.2-1-cpu-py3")
    assert request is not None
    assert request.repository == f"{registry}sagemaker-scikit-learn"


@pytest.mark.parametrize("image", ["sagemaker-xgboost:1.7-1", "me/sagemaker-scikit-learn-own:1.2-1", "python:3.11", ""])
def test_other_repositories_are_not_ours(image):
    assert images.recognise(image) is None


@pytest.mark.parametrize(
    "image",
    [
        f"{ECR}/sagemaker-scikit-learn:9.9-1-cpu-py3",
        f"{ECR}/sagemaker-scikit-learn",
        f"{ECR}/sagemaker-scikit-learn:1.2-1-py312-cpu-py3",
        f"{ECR}/sagemaker-scikit-learn@sha256:{'0' * 64}",
        "mooring-python:2.7",
        f"mooring-python@sha256:{'0' * 64}",
    ],
)
def test_a_known_repository_with_an_unknown_version_says_so(image):
    with pytest.raises(DriverError) as error:
        images.recognise(image)
    assert image in error.value.reason
    assert not error.value.retryable


@pytest.mark.parametrize("tag", ["", ":latest", ":3"])
def test_the_plain_image_takes_any_python_newest_first(tag):
    request = images.recognise(f"registry:5000/mooring-python{tag}")
    assert request is not None
    assert request.family == "python"
    assert request.prefer_running_python
    assert [p.python for p in request.pythons] == list(reversed(images.SERVER_PYTHONS))
    assert all(p.pins == () for p in request.pythons)


def test_the_plain_image_takes_a_minor_version():
    request = images.recognise("mooring-python:3.9")
    assert request is not None
    assert [p.python for p in request.pythons] == ["3.9"]


def test_every_row_names_a_python_once_and_pins_numpy():
    for row in images._SKLEARN:
        pythons = [p.python for p in row.pythons]
        assert len(set(pythons)) == len(pythons) > 0
        assert all(any(pin.startswith("numpy==") for pin in p.pins) for p in row.pythons)
