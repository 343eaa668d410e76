"""What an operator can set, ask or run is written down."""

from dataclasses import fields
from pathlib import Path

import pytest

from mooring.protocol.offered import OFFERED
from mooring.settings import Settings

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("name", [option.name for option in fields(Settings)])
def test_every_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in OPERATIONS


def test_every_offered_operation_of_sagemaker_is_on_the_coverage_page() -> None:
    coverage = (ROOT / "docs" / "coverage.md").read_text()
    missing = [operation for operation in OFFERED["sagemaker"] if f"## {operation}\n" not in coverage]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    import re

    here = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", here.read_text()):
        if "://" not in target:
            assert (here.parent / target).exists(), f"{page} links to {target}"
