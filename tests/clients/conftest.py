"""Real client packages at their versions, each in a throw-away environment kept under .venv for the next run."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def client_environment():
    """Build (once) an environment with the given requirements; returns its bin directory."""

    def build(*requirements: str) -> Path:
        key = hashlib.sha256(repr((sys.version_info[:2], requirements)).encode()).hexdigest()[:16]
        home = ROOT / ".venv" / ".clients" / key
        done = home / ".complete"
        if not done.exists():
            uv = str(ROOT / ".venv" / "bin" / "uv")
            python = str(home / "bin" / "python")
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
            subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *requirements], check=True)
            done.touch()
        return home / "bin"

    return build
