"""The commands and their options. What they print is for people; what they do is in `app`."""

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mooring import settings
from mooring.settings import SettingError, Settings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Self-hosted machine-learning inference that speaks the Amazon SageMaker API.",
)
err = Console(stderr=True, highlight=False, soft_wrap=True)

EXIT_USAGE = 2
EXIT_CANNOT_START = 1

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where all state lives.", show_default="./.mooring", metavar="PATH")
]
Config = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML).", metavar="FILE")]


def fail(text: str, *, code: int = EXIT_CANNOT_START) -> typer.Exit:
    """Print one line for the operator; the caller raises what this returns."""
    err.print(f"[bold red]error:[/] {_plain(text)}")
    return typer.Exit(code)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def load_settings(flags: Mapping[str, object], config: Path | None) -> Settings:
    """Settings of a command. Exits with a line when they cannot be used."""
    try:
        return settings.load(flags=flags, environment=os.environ, config_file=config)
    except SettingError as error:
        raise fail(str(error), code=EXIT_USAGE) from error


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mooring {importlib.metadata.version('mooring')}")
        raise typer.Exit


@app.callback()
def every_command(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """What is common to all commands."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[str | None, typer.Option(help="Port; 0: a free one.", show_default="4747")] = None,
    data_dir: DataDir = None,
    region: Annotated[str | None, typer.Option(help="The region served.", show_default="us-east-1")] = None,
    config: Config = None,
    account_id: Annotated[str | None, typer.Option(help="The account.", show_default="000000000000")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Allow an address beyond loopback, unencrypted.")
    ] = None,
    keep_instances: Annotated[
        bool | None, typer.Option("--keep-instances", help="Leave models running when the server stops.")
    ] = None,
    edge_workers: Annotated[
        str | None, typer.Option(help="Processes that take requests.", show_default="one per CPU")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", show_default="info")] = None,
    invocation_timeout_s: Annotated[
        str | None, typer.Option(help="Longest a model may take to answer.", show_default="60")
    ] = None,
    invocation_max_bytes: Annotated[
        str | None, typer.Option(help="Largest request body of an invocation.", show_default="25MiB")
    ] = None,
    runtime_egress: Annotated[
        str | None, typer.Option(help="Network of models: auto, none or host.", show_default="auto")
    ] = None,
    capacity_oversize: Annotated[
        str | None, typer.Option(help="Types larger than this machine: shrink or refuse.", show_default="shrink")
    ] = None,
    capacity_memory: Annotated[
        str | None, typer.Option(help="Count memory limits: share or reserve.", show_default="share")
    ] = None,
    capacity_memory_floor_bytes: Annotated[
        str | None, typer.Option(help="Memory that is kept free.", show_default="512MiB")
    ] = None,
    logs_max_bytes: Annotated[str | None, typer.Option(help="Size of the log store.", show_default="256MiB")] = None,
    instance_types_file: Annotated[
        str | None, typer.Option(help="CSV of own instance types.", show_default=False, metavar="FILE")
    ] = None,
    index_url: Annotated[
        str | None, typer.Option(help="Package index for environments.", show_default="uv's own", metavar="URL")
    ] = None,
) -> None:
    """Start the server. Every option is also read from MOORING_<NAME> and from the settings file."""
    given = {name: value for name, value in locals().items() if name != "config"}
    chosen = load_settings(given, config)

    from mooring.app import logs
    from mooring.app import serve as server
    from mooring.cli import texts

    logs.configure("supervisor", chosen.log_level)
    for name in settings.unknown_environment(os.environ):
        err.print(f"[yellow]warning:[/] {name} is set but no such option exists")
    out = Console(highlight=False, soft_wrap=True)
    try:
        code = server.serve(
            chosen,
            on_listening=lambda started: texts.print_started(out, err, started, os.environ),
            on_ready=lambda seconds: out.print(f"[green]Ready[/] after {seconds:.2f} s. Ctrl-C stops it."),
        )
    except server.StartError as error:
        raise fail(str(error)) from error
    sys.exit(code)


@app.command()
def status(data_dir: DataDir = None, config: Config = None) -> None:
    """Show endpoints, variants and instances of a running server."""
    chosen = load_settings({"data_dir": data_dir}, config)

    from mooring.app import ask
    from mooring.cli import texts

    try:
        report = ask.status(chosen.data_dir)
    except ask.NotRunningError as error:
        raise fail(str(error)) from error
    texts.print_status(Console(highlight=False), report)


@app.command()
def env(data_dir: DataDir = None, config: Config = None) -> None:
    """Print the export lines for a running server: eval "$(mooring env)"."""
    chosen = load_settings({"data_dir": data_dir}, config)

    from mooring.app import ask
    from mooring.cli import texts

    try:
        report = ask.status(chosen.data_dir)
    except ask.NotRunningError as error:
        raise fail(str(error)) from error
    for line in texts.export_lines(report.url, chosen.data_dir.absolute() / "credentials", report.region):
        typer.echo(line)


@app.command()
def logs(
    endpoint: Annotated[
        str | None, typer.Argument(help="An endpoint, or a whole log group; none: list groups.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    last: Annotated[int, typer.Option("--last", "-n", min=0, max=100_000, help="Lines of each stream.")] = 50,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Show what an endpoint's containers printed."""
    chosen = load_settings({"data_dir": data_dir}, config)

    from mooring.app import tail
    from mooring.cli import texts
    from mooring.domain import ids

    if endpoint is None:
        for name in tail.groups(chosen.data_dir):
            typer.echo(name)
        return
    group = endpoint if endpoint.startswith("/") else ids.endpoint_log_group(endpoint)
    try:
        for stream, event in tail.lines(chosen.data_dir, group, last=last, follow=follow):
            typer.echo(texts.log_line(stream, event))
    except tail.NoLogsError as error:
        raise fail(texts.no_such_group(error.group, error.known)) from error
    except KeyboardInterrupt:
        return
