"""The launch document: everything a shim is told, as JSON in an anonymous file (it may hold the model's environment).

runtime.process writes the same members; names are checked here, so that a mismatch fails the start and not the instance.
"""

import json
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """What to run and where to keep what comes of it. Descriptors are inherited ones."""

    directory: str  # the instance's (contract.shim)
    log_directory: str
    argv: list[str]
    environment: dict[str, str]  # of argv itself: never the model's when there is a sandbox
    memory_files: dict[str, str]  # descriptor number in the child → content
    info_fd: int  # descriptor number in the child where bwrap writes {"child-pid": …}; -1: argv is the model server
    working_directory: str
    control_group: list[str]  # directories
    resource_limits: dict[str, int]  # names of the resource module, soft = hard
    slirp: list[str]  # slirp4netns and its options, attached to the sandbox's network; empty: not
    forward_port: int  # on the sandbox's own loopback, to the address in the file; 0: none
    forward_address_file: str  # "<numeric host> <port>", read for every connection
    preamble: list[str]  # lines for the log before the first of the model's
    ready_fd: int  # gets {"pid": …} once the child runs, or {"error": …}
    lock_fd: int


def read(fd: int) -> Launch:
    """Parse the document of a descriptor, and close it."""
    with os.fdopen(fd, "rb") as file:
        return Launch(**json.loads(file.read()))
