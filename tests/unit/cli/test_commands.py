"""What the command says that needs no running server."""

import importlib.metadata
from pathlib import Path

from typer.testing import CliRunner

from mooring.cli import commands, texts
from mooring.kit.clock import SystemClock
from mooring.telemetry.platform_log import PlatformLog


def test_the_version_is_shown() -> None:
    result = CliRunner().invoke(commands.app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"mooring {importlib.metadata.version('mooring')}\n"


def test_a_log_group_that_is_not_there_is_answered_with_the_nearest_few(tmp_path: Path) -> None:
    log = PlatformLog(tmp_path / "logs", SystemClock())
    for number in range(40):
        log.write(f"/aws/sagemaker/Endpoints/other-{number}", "a/platform", "said")
    log.write("/aws/sagemaker/Endpoints/iris", "a/platform", "said")
    result = CliRunner().invoke(commands.app, ["logs", "irys", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    first, *names, rest = result.output.splitlines()
    assert first == "error: there is no log group /aws/sagemaker/Endpoints/irys; there are:"
    assert names[0] == "  /aws/sagemaker/Endpoints/iris"
    assert len(names) == texts.NAMES_SHOWN
    assert rest == f"  and {41 - texts.NAMES_SHOWN} more (mooring logs shows them all)"


def test_where_there_are_few_log_groups_all_are_named() -> None:
    assert texts.no_such_group("/x", ["/a", "/b"]).splitlines() == [
        "there is no log group /x; there are:",
        "  /b",
        "  /a",
    ]
    assert texts.no_such_group("/x", []) == "there is no log group /x, nor any other yet"
