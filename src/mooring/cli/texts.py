"""What the commands print."""

import difflib
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mooring.app.serve import Started
from mooring.telemetry.segments import Event
from mooring.telemetry.status import Report

NAMES_SHOWN = 5
# Each of these makes an AWS tool look elsewhere for its credentials than into the file we name.
_WOULD_WIN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")


def export_lines(url: str, credentials_file: Path, region: str) -> list[str]:
    """What a shell needs so that unmodified AWS tools reach this server. No secret."""
    return [
        f"export AWS_ENDPOINT_URL={url}",
        f"export AWS_SHARED_CREDENTIALS_FILE={shlex.quote(str(credentials_file))}",
        f"export AWS_REGION={region} AWS_DEFAULT_REGION={region}",
    ]


def overriding(environment: Mapping[str, str]) -> list[str]:
    """Variables of this environment that would win over the credentials file."""
    return [name for name in _WOULD_WIN if environment.get(name)]


def print_started(out: Console, err: Console, started: Started, environment: Mapping[str, str]) -> None:
    """The first lines of `mooring serve`."""
    made = " (made just now)" if started.credentials_made else ""
    out.print(f"[bold]Mooring[/] listens on [cyan]{started.url}[/], data in {started.data_dir}", markup=True)
    out.print(f"To use it from another shell{made}:\n")
    for line in export_lines(started.url, started.credentials_file, started.region):
        out.print(f"  {line}", markup=False)
    out.print()
    winning = overriding(environment)
    if winning:
        err.print(
            f"[yellow]warning:[/] {', '.join(winning)} in this environment would win over the credentials file; "
            f"unset it where you use the server"
        )


def log_line(stream: str, event: Event) -> str:
    """One event for a terminal: control characters of a container must not steer it."""
    stamp = datetime.fromtimestamp(event.ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    text = "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in event.text.rstrip("\r\n"))
    return f"{stamp}Z {stream} {text}"


def no_such_group(group: str, known: Sequence[str]) -> str:
    """What `mooring logs` says of a name that it does not know: the nearest ones, and how many more there are."""
    if not known:
        return f"there is no log group {group}, nor any other yet"
    near = difflib.get_close_matches(group, known, n=NAMES_SHOWN, cutoff=0.0)
    lines = [f"there is no log group {group}; there are:", *(f"  {name}" for name in near)]
    if len(known) > len(near):
        lines.append(f"  and {len(known) - len(near)} more (mooring logs shows them all)")
    return "\n".join(lines)


def print_status(out: Console, report: Report) -> None:
    """Tables of `mooring status`."""
    out.print(f"[bold]Mooring[/] {report.version} on [cyan]{report.url}[/], account {report.account}, {report.region}")
    if not report.endpoints:
        out.print("no endpoints")
    for endpoint in report.endpoints:
        table = Table(
            title=f"{endpoint.name}  [bold]{endpoint.status}[/]", title_justify="left", title_style="", expand=False
        )
        for column in ("variant", "weight", "instances", "in flight", "invocations", "errors", "notes"):
            table.add_column(column, justify="left" if column in ("variant", "notes") else "right")
        for variant in endpoint.variants:
            table.add_row(
                variant.name,
                f"{variant.weight:g}",
                f"{variant.healthy} of {variant.desired}",
                str(variant.in_flight),
                str(variant.invocations),
                str(variant.errors),
                "; ".join(variant.notes),
            )
        out.print(table)
        if endpoint.failure_reason:
            out.print(f"  {endpoint.failure_reason}", style="red", markup=False)
    for note in report.notes:
        out.print(f"[yellow]note:[/] {note}")
