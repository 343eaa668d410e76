"""A model directory and a handler from source text."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mooring.serving import settings as serving_settings
from mooring.serving.handler import Handler


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


@pytest.fixture
def settings_of(model_dir: Path, tmp_path: Path):
    def make(**environ: str) -> serving_settings.Settings:
        return serving_settings.read(
            {"MOORING_MODEL_DIR": str(model_dir), "MOORING_CODE_DIR": str(tmp_path / "fetched"), **environ}
        )

    return make


@pytest.fixture
def handler_of(settings_of):
    """Handler of a script given as text."""

    def make(source: str | None, family: str = "python", **environ: str) -> Handler:
        script = None
        if source is not None:
            script = ModuleType("inference")
            exec(source, script.__dict__)
        lines: list[str] = []
        handler = Handler(settings_of(MOORING_FAMILY=family, **environ), script, lines.append)
        handler.said = lines  # type: ignore[attr-defined]
        return handler

    return make


@pytest.fixture
def clean_imports(monkeypatch: pytest.MonkeyPatch):
    """sys.path and sys.modules as before, whatever a script puts there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before: dict[str, Any] = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
