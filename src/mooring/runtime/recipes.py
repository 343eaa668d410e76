"""What is run for an image: our model server in its environment, with its variables. Called by runtime.process."""

import os
from dataclasses import dataclass

from mooring import contract
from mooring.domain.instance import InstanceSpec
from mooring.runtime import sandbox
from mooring.runtime.artifacts import Artifact
from mooring.runtime.environments import Environment
from mooring.runtime.sandbox import Mount, Program


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The token of `Prepared`: what to run on which data."""

    program: Program
    artifact: Artifact
    code: Artifact | None = None
    environment: str = ""  # name in the environment store


def server_program(
    spec: InstanceSpec,
    env: Environment,
    family: str,
    code: Artifact | None,
    *,
    plain_root: str | None,
    tcp: bool,
    endpoint_url: str,
) -> Program:
    """Our model server in an environment. `plain_root`: where `show_server` shows it when there is no sandbox. `tcp`: its
    network is its own, it may listen on port 8080 as well. `endpoint_url`: of AWS' services, where there is one.
    """
    plain = plain_root is not None
    mounts = [Mount(source=str(path), target=str(path)) for path in env.mounts()]
    mounts = [mount for mount in mounts if not sandbox.is_system_path(mount.target)]
    mounts += sandbox.server_mounts()
    environment = _base_environment(spec, str(env.path / "bin"), endpoint_url)
    environment[contract.ENV_FAMILY] = family
    root = plain_root or sandbox.SERVER_ROOT
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, spec.environment.get("PYTHONPATH", ""))))
    if code is not None:
        mounts.append(Mount(source=code.directory, target=contract.CODE_DIR))
        environment[contract.ENV_SUBMIT_DIRECTORY] = code.directory if plain else contract.CODE_DIR
        if plain:
            environment[contract.ENV_CODE_DIR] = code.directory
    if tcp:
        environment[contract.ENV_SERVE_TCP] = "1"
    python = str(env.python)
    return Program(
        argv=(python, "-m", "mooring.serving", "serve"),
        environment=environment,
        mounts=tuple(mounts),
        python=python,
    )


def _base_environment(spec: InstanceSpec, bin_directory: str, endpoint_url: str) -> dict[str, str]:
    """What a container has, then what its user set, then what cannot be otherwise."""
    return {
        "HOME": "/tmp",  # noqa: S108  # the sandbox's own
        "LANG": "C.UTF-8",
        "AWS_REGION": spec.scope.region,
        "AWS_DEFAULT_REGION": spec.scope.region,
        **({"AWS_ENDPOINT_URL": endpoint_url} if endpoint_url else {}),
        **spec.environment,
        contract.ENV_VCPU: f"{spec.limits.vcpu:g}",
        "PATH": f"{bin_directory}:/usr/local/bin:/usr/bin:/bin",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def show_server(directory: str) -> None:
    """A directory for PYTHONPATH that holds this package and none of the server's libraries."""
    os.makedirs(directory, exist_ok=True)
    link = os.path.join(directory, "mooring")
    package = os.path.dirname(os.path.dirname(os.path.abspath(contract.__file__)))
    if not os.path.islink(link) or os.readlink(link) != package:
        temporary = f"{link}.{os.getpid()}.tmp"
        os.symlink(package, temporary)
        os.replace(temporary, link)


def unknown_image(image: str) -> str:
    """Why an image is refused."""
    return (
        f"The image {image!r} is not one of the framework images that the process runtime serves: "
        "sagemaker-scikit-learn:<0.20.0|0.23-1|1.0-1|1.2-1|1.4-2>[-cpu-py3] and mooring-python[:<version>]. "
        "Any other image needs a container engine, which this version does not drive yet."
    )
