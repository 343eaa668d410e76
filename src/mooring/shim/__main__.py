"""Entry: `python -I -S …/mooring/shim/__main__.py <descriptor of the launch document> <instance directory>`.

The directory is in argv so that a stray shim can be told from /proc; everything else comes by the descriptor.
"""

import os
import sys

if __package__ in (None, ""):  # run by path, without site: find the package this file lies in
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from mooring.shim import launch, service


def main() -> None:
    """Leave the starter behind (own session, own parent), then serve until the instance ends."""
    document = launch.read(int(sys.argv[1]))
    os.setsid()
    if os.fork():  # the starter reaps this first process at once; the second belongs to init
        os._exit(0)
    os.chdir("/")
    os.umask(0o077)
    service.run(document)


if __name__ == "__main__":
    main()
