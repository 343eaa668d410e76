"""`python -m mooring.serving serve`: the argument is the one that SageMaker starts containers with."""

import os
import sys
from typing import Any

from mooring import contract
from mooring.serving.settings import BadEnvironment, read, thread_variables

EXIT_USAGE = 64  # EX_USAGE


def main() -> int:
    """Read the environment, serve, return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        _write_lines_at_once(stream)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")  # for Pythons that handlers start
    if sys.argv[1:] != ["serve"]:
        sys.stderr.write("usage: python -m mooring.serving serve\n")
        return EXIT_USAGE
    try:
        settings = read(os.environ)
    except BadEnvironment as error:
        sys.stderr.write("mooring: {}\n".format(error))
        return contract.EXIT_MODEL_LOAD_FAILED
    # before anything imports a numeric library, which reads them once
    os.environ.update(thread_variables(settings, os.environ))
    from mooring.serving.front import Front

    try:
        return Front(settings).run()
    except OSError as error:
        sys.stderr.write("mooring: cannot serve: {}\n".format(error))
        return 1


def _write_lines_at_once(stream: Any) -> None:
    """What a handler prints is in the log when the line ends, and not before: other processes write there too, and with
    PYTHONUNBUFFERED a line and its end are two writes.
    """
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, write_through=False)


if __name__ == "__main__":
    sys.exit(main())
