"""The user's script and model: found, imported, loaded. Called by worker once, before it serves.

    <model_dir>/code/inference.py    (SAGEMAKER_PROGRAM; SAGEMAKER_SUBMIT_DIRECTORY may name another directory)
    <model_dir>/inference.py         where code/ has none: said in the log
    <code_dir>/inference.py          SAGEMAKER_SUBMIT_DIRECTORY is an s3:// archive that the platform unpacked there

An extension of ours for scikit-learn: without a model_fn (the AWS container has no default) a single joblib or pickle file
at the top of the model directory is loaded.
"""

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, Callable, Iterator, List, Optional, Tuple

from mooring import contract
from mooring.serving.problems import LoadFailure
from mooring.serving.settings import Settings

_PICKLES = (".joblib", ".pkl", ".pickle")
_PREFERRED = ("model.joblib", "model.pkl")


def import_script(settings: Settings, say: Callable[[str], None]) -> Optional[ModuleType]:
    """The user's module, None where there is none. What the module raises while it is imported comes through."""
    found = _find_script(settings, say)
    if found is None:
        return None
    directory, path = found
    sys.path.insert(0, directory)
    parent = os.path.dirname(path)
    if parent != directory:
        sys.path.insert(1, parent)
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LoadFailure("{} is not a Python script".format(path))
    module = importlib.util.module_from_spec(spec)
    if name in sys.modules:
        say("{} has the name of a loaded module; pickles cannot refer to its classes".format(path))
    else:
        sys.modules[name] = module  # pickles refer to classes by module name
    spec.loader.exec_module(module)
    return module


def _find_script(settings: Settings, say: Callable[[str], None]) -> Optional[Tuple[str, str]]:
    """(directory for sys.path, script)."""
    program = settings.program if settings.program.endswith(".py") else settings.program + ".py"
    if os.path.isabs(program) or ".." in program.split("/"):
        raise LoadFailure("{}={!r}: the script must lie in the code directory".format(contract.ENV_PROGRAM, program))
    directories = list(_code_directories(settings))
    for directory in directories:
        path = os.path.join(directory, program)
        if os.path.isfile(path):
            return directory, path
    path = os.path.join(settings.model_dir, program)
    if os.path.isfile(path):
        say("{} is used from the top of the model data; code/ has none".format(program))
        return settings.model_dir, path
    if settings.submit_directory.startswith("s3://"):
        raise LoadFailure(
            "{} is in none of {}: {}={} has to be downloaded by the platform, which has not put it there".format(
                program, ", ".join(directories), contract.ENV_SUBMIT_DIRECTORY, settings.submit_directory
            )
        )
    if settings.program != contract.DEFAULT_PROGRAM:
        raise LoadFailure(
            "{}={}: there is no such script in {} or {}".format(
                contract.ENV_PROGRAM, settings.program, ", ".join(directories), settings.model_dir
            )
        )
    return None


def misplaced(settings: Settings) -> str:
    """For a failure: where in the model data the script lies instead, if it was packed with a folder around it."""
    program = settings.program if settings.program.endswith(".py") else settings.program + ".py"
    for name in sorted(_names(settings.model_dir)):
        for inner in (os.path.join(name, "code", program), os.path.join(name, program)):
            if os.path.isfile(os.path.join(settings.model_dir, inner)):
                return " but {} (pack what is inside {}/, not the folder)".format(inner, name)
    return ""


def _code_directories(settings: Settings) -> Iterator[str]:
    submit = settings.submit_directory
    if submit.startswith("s3://"):
        yield settings.code_dir
    elif submit:
        yield _local(submit, settings)
    yield os.path.join(settings.model_dir, "code")


def _local(submit: str, settings: Settings) -> str:
    """A path as a container sees it, where the model lies elsewhere because nothing could be mounted."""
    path = submit[len("file://") :] if submit.startswith("file://") else submit
    for shown, real in ((contract.MODEL_DIR, settings.model_dir), (contract.CODE_DIR, settings.code_dir)):
        if path == shown or path.startswith(shown + "/"):
            return real + path[len(shown) :]
    return path


def load_pickle(model_dir: str, say: Callable[[str], None]) -> Any:
    """scikit-learn's model without a model_fn: the one pickle there is."""
    names = _pickles(model_dir)
    chosen = next((name for name in _PREFERRED if name in names), names[0] if len(names) == 1 else None)
    if chosen is None:
        there = ", ".join(names) if names else ", ".join(sorted(_names(model_dir))[:20]) or "nothing"
        raise LoadFailure(
            "no model_fn is defined, and the model data has no single model.joblib or model.pkl at its top, but {}".format(
                there
            )
        )
    say("no model_fn is defined: loading {}".format(chosen))
    path = os.path.join(model_dir, chosen)
    try:
        joblib = importlib.import_module("joblib")
    except ImportError:
        import pickle

        with open(path, "rb") as file:
            return pickle.load(file)  # noqa: S301  the model is code already
    return joblib.load(path)


def _pickles(model_dir: str) -> List[str]:
    return sorted(name for name in _names(model_dir) if name.endswith(_PICKLES) and not name.startswith("."))


def _names(model_dir: str) -> List[str]:
    try:
        return os.listdir(model_dir)
    except OSError as error:
        raise LoadFailure("the model directory {} cannot be read: {}".format(model_dir, error.strerror)) from error


def versions() -> str:
    """Python and the libraries that pickles depend on, for the log and for failures."""
    parts = ["Python {}.{}.{}".format(*sys.version_info[:3])]
    for name, title in (("numpy", "NumPy"), ("scipy", "SciPy"), ("sklearn", "scikit-learn")):
        module = sys.modules.get(name)
        if module is not None:
            parts.append("{} {}".format(title, getattr(module, "__version__", "?")))
    return ", ".join(parts)
