"""`python -m mooring.app edge|control|s3`: a child process, started by the supervisor alone.

The argument is for those who read `ps`; what the process is and gets stands in the launch document.
"""

import sys

from mooring.app import launch
from mooring.supervisor import parent


def main() -> int:
    """Run the process that the launch document names; returns its exit status."""
    try:
        mine = launch.read()
    except KeyError:
        sys.stderr.write("this is a part of the server; start it with: mooring serve\n")
        return 64
    parent.die_with(mine.supervisor_pid)

    from mooring.app import logs

    logs.configure(f"edge-{mine.worker}" if mine.process == "edge" else mine.process, mine.settings.log_level)
    if mine.process == "edge":
        from mooring.app import edge

        return edge.run(mine)
    if mine.process == "control":
        from mooring.app import control

        return control.run(mine)
    if mine.process == "s3":
        from mooring.app import s3

        return s3.run(mine)
    raise ValueError(f"no such process: {mine.process}")


if __name__ == "__main__":
    sys.exit(main())
