"""The server's environment."""

import pytest

from mooring.serving import settings


def test_defaults_are_those_of_a_container():
    read = settings.read({"MOORING_VCPU": "2.0"})
    assert (read.family, read.model_dir, read.code_dir) == ("python", "/opt/ml/model", "/opt/ml/code")
    assert (read.program, read.default_accept) == ("inference.py", "application/json")
    assert (read.workers, read.vcpus, read.tcp_port, read.socket_path) == (2, 2, 8080, None)
    assert read.max_body_bytes == 100 << 20
    assert read.timeout_s == 0


def test_a_socket_alone_means_no_port_unless_asked_for():
    assert settings.read({"MOORING_SERVE_SOCKET": "/s"}).tcp_port is None
    both = settings.read({"MOORING_SERVE_SOCKET": "/s", "MOORING_SERVE_TCP": "1", "SAGEMAKER_BIND_TO_PORT": "9001"})
    assert (both.socket_path, both.tcp_port) == ("/s", 9001)


def test_sagemakers_variables_are_followed():
    read = settings.read(
        {
            "MOORING_VCPU": "8",
            "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
            "SAGEMAKER_MODEL_SERVER_TIMEOUT": "90",
            "SAGEMAKER_MAX_PAYLOAD_IN_MB": "7",
            "SAGEMAKER_PROGRAM": "serve_me.py",
            "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv",
        }
    )
    assert (read.workers, read.timeout_s, read.max_body_bytes) == (3, 90.0, 7 << 20)
    assert (read.program, read.default_accept) == ("serve_me.py", "text/csv")


def test_a_payload_of_zero_is_the_default_limit():
    assert settings.read({"SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}).max_body_bytes == 100 << 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "0"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "many"),
        ("SAGEMAKER_BIND_TO_PORT", "70000"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "-1"),
        ("MOORING_VCPU", "x"),
        ("MOORING_FAMILY", "fortran"),
    ],
)
def test_values_that_cannot_be_meant_are_refused_by_name(name, value):
    with pytest.raises(settings.BadEnvironment, match=name):
        settings.read({name: value})


def test_vcpus_are_shared_out_as_threads_and_the_users_choice_stays():
    read = settings.read({"MOORING_VCPU": "8", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"})
    variables = settings.thread_variables(read, {"OMP_NUM_THREADS": "1"})
    assert "OMP_NUM_THREADS" not in variables
    assert variables["OPENBLAS_NUM_THREADS"] == "4"
    more_workers_than_vcpus = settings.read({"MOORING_VCPU": "1", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"})
    assert settings.thread_variables(more_workers_than_vcpus, {})["MKL_NUM_THREADS"] == "1"
