"""`python -m bench [name] [options]`: one benchmark, or all of them with their defaults."""

import importlib
import sys

BENCHMARKS = ("gateway", "startup")


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in BENCHMARKS:
        return int(importlib.import_module(f"bench.{arguments[0]}").main(arguments[1:]))
    if arguments:
        print(f"usage: python -m bench [{'|'.join(BENCHMARKS)}] [options]", file=sys.stderr)
        return 2
    return max(int(importlib.import_module(f"bench.{name}").main([])) for name in BENCHMARKS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
