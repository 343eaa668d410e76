"""Which image names are served without a container engine, and what they mean: framework, versions, Pythons.

Called by the process driver before it builds an environment (`runtime.environments`). A table: one row per version that an
image tag stands for. Registry and account do not count, for users mirror images; repository name and tag do. Knows nothing
of uv or of the machine.

The pins are those of the AWS image where its Python is used, else the nearest versions that have wheels for the Python at
hand (repository aws/sagemaker-scikit-learn-container: docker/<version>/, requirements.txt). pandas is in every AWS
scikit-learn image; pyarrow is too, but left to the user's requirements.txt for its size.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mooring.runtime.driver import DriverError

FAMILY_SKLEARN = "sklearn"
FAMILY_PYTHON = "python"

# What `mooring.serving` runs on, newest last. 3.7 is there for scikit-learn 0.20 alone.
SERVER_PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonPins:
    """A Python that an image may run on, and the packages that the image brings there ("name==version")."""

    python: str  # minor version, "3.10"
    pins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A recognised image: what an environment is built from."""

    image: str  # as the user wrote it
    repository: str  # the same without tag
    family: str  # what the model server gets as MOORING_FAMILY
    version: str
    pythons: tuple[PythonPins, ...]  # in order of preference
    prefer_running_python: bool = False  # the server's own Python comes first where it is among them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    version: str
    tag: re.Pattern[str]
    pythons: tuple[PythonPins, ...]


def _sklearn_pins(
    version: str, sets: Mapping[str, Sequence[str]], *, names: Sequence[str] = ("numpy", "scipy", "pandas")
) -> tuple[PythonPins, ...]:
    """`sets`: Python → versions of `names`."""
    return tuple(
        PythonPins(
            python=python,
            pins=(
                f"scikit-learn=={version}",
                *(f"{name}=={pinned}" for name, pinned in zip(names, versions, strict=True)),
                "joblib>=0.11",
            ),
        )
        for python, versions in sets.items()
    )


def _tag(version: str) -> re.Pattern[str]:
    """`<version>[-py312][-cpu][-py3]`: SDK v2 writes `1.2-1-cpu-py3`, AWS also publishes the bare version."""
    return re.compile(rf"{re.escape(version)}(?:-py(?P<python>3\d+))?(?:-cpu)?(?:-py3)?")


_SKLEARN = (
    _Row(
        version="0.20.0",
        tag=_tag("0.20.0"),
        pythons=_sklearn_pins("0.20.0", {"3.7": ("1.17.5", "1.3.3", "0.25.3")}),
    ),
    _Row(
        version="0.23.2",
        tag=_tag("0.23-1"),
        pythons=_sklearn_pins("0.23.2", {"3.8": ("1.19.2", "1.5.3", "1.1.3")}),
    ),
    _Row(
        version="1.0.2",
        tag=_tag("1.0-1"),
        pythons=_sklearn_pins(
            "1.0.2",
            {
                "3.8": ("1.19.5", "1.5.3", "1.1.3"),
                "3.9": ("1.19.5", "1.5.4", "1.1.5"),
                "3.10": ("1.22.4", "1.8.1", "1.4.4"),
            },
        ),
    ),
    _Row(
        version="1.2.1",
        tag=_tag("1.2-1"),
        pythons=_sklearn_pins(
            "1.2.1",
            {
                "3.9": ("1.24.1", "1.8.0", "1.1.3"),
                "3.8": ("1.24.1", "1.8.0", "1.1.3"),
                "3.10": ("1.24.1", "1.8.0", "1.5.3"),
                "3.11": ("1.24.1", "1.9.3", "1.5.3"),
            },
        ),
    ),
    _Row(
        version="1.4.2",
        tag=_tag("1.4-2"),
        pythons=_sklearn_pins(
            "1.4.2",
            {
                "3.10": ("2.1.0", "1.14.1", "2.2.3"),
                "3.11": ("2.1.0", "1.14.1", "2.2.3"),
                "3.12": ("2.1.0", "1.14.1", "2.2.3"),
                "3.9": ("2.0.2", "1.13.1", "2.2.3"),
            },
        ),
    ),
)


def recognise(image: str) -> ImageRequest | None:
    """What an image name stands for; None when its repository is none of ours (a container engine is needed). Raises
    DriverError for a known repository with a version that is not known.
    """
    repository, tag, digest = split_image(image)
    name = repository.rsplit("/", 1)[-1]
    if name == "sagemaker-scikit-learn":
        _refuse_digest(image, digest)
        return _recognise_sklearn(image, repository, tag)
    if name == "mooring-python":
        _refuse_digest(image, digest)
        return _recognise_python(image, repository, tag)
    return None


def split_image(image: str) -> tuple[str, str, str]:
    """(repository with registry, tag or "", digest or "")."""
    name, _, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag, digest


def _refuse_digest(image: str, digest: str) -> None:
    if digest:
        raise DriverError(
            f"{image}: a digest does not say which versions are meant, and no container engine is in use; name a tag.",
            retryable=False,
        )


def _recognise_sklearn(image: str, repository: str, tag: str) -> ImageRequest:
    for row in _SKLEARN:
        match = row.tag.fullmatch(tag)
        if match is None:
            continue
        asked = match["python"]
        pythons = tuple(p for p in row.pythons if asked is None or p.python.replace(".", "") == asked)
        if pythons:
            return ImageRequest(
                image=image, repository=repository, family=FAMILY_SKLEARN, version=row.version, pythons=pythons
            )
    raise DriverError(
        f"{image}: no such scikit-learn image is known. Known tags: 0.20.0-cpu-py3, 0.23-1-cpu-py3, 1.0-1-cpu-py3, "
        "1.2-1-cpu-py3, 1.4-2-cpu-py3, 1.4-2-py312-cpu-py3.",
        retryable=False,
    )


def _recognise_python(image: str, repository: str, tag: str) -> ImageRequest:
    """Our own image: Python and nothing else. Tags: latest, 3, or a minor version."""
    version = tag or "latest"
    if version in {"latest", "3"}:
        pythons = tuple(PythonPins(python=python) for python in reversed(SERVER_PYTHONS))
    elif version in SERVER_PYTHONS:
        pythons = (PythonPins(python=version),)
    else:
        raise DriverError(
            f"{image}: no such Python image is known. Known tags: latest, 3, {', '.join(SERVER_PYTHONS)}.",
            retryable=False,
        )
    return ImageRequest(
        image=image,
        repository=repository,
        family=FAMILY_PYTHON,
        version=version,
        pythons=pythons,
        prefer_running_python=True,
    )
