"""The server's own log: plain lines on stderr, one form for every process.

2026-01-31T09:15:00.123Z INFO  control  reconcile.loop: endpoint demo is InService
"""

import logging
import sys
import time


class _Lines(logging.Formatter):
    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-8s {process:<10} %(shortname)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.shortname = record.name.removeprefix("mooring.")
        return super().format(record)


def configure(process: str, level: str) -> None:
    """Called once by each process. Libraries speak from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger("mooring").setLevel(level.upper())
    if level.upper() == "INFO":  # a line for every call is for those who look for something
        logging.getLogger("mooring.api.server").setLevel(logging.WARNING)
