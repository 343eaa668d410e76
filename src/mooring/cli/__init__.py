"""The `mooring` command: parse, call app, print."""


def main() -> None:
    """Entry point of the console script."""
    from mooring.cli import commands

    commands.app()
