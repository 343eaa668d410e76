"""make test-effects: every request member that the coverage page calls *works*, dropped once after parsing.

The test that shows it must pass as it is, and fail with the member dropped (MOORING_TEST_DROP_MEMBER). Arguments: member
names or their beginnings, to run only these.
"""

import os
import subprocess
import sys
from dataclasses import dataclass

import ledger

TIMEOUT_S = 300
SWITCH = "MOORING_TEST_DROP_MEMBER"

PASSED, FAILED = 0, 1  # pytest's exit codes; any other means that the test did not run


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one row."""

    row: ledger.Row
    holds: bool
    words: str


def run(test: str, dropped: str | None) -> int:
    """Exit code of one test in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != SWITCH}
    if dropped is not None:
        environment[SWITCH] = dropped
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
    try:
        done = subprocess.run(
            command,
            cwd=ledger.ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return FAILED if dropped is not None else -1
    return done.returncode


def judge(row: ledger.Row, sound: dict[str, int]) -> Verdict:
    """Whether the row's test fails without the member; `sound` remembers which tests pass with it."""
    assert row.test is not None
    if row.test not in sound:
        sound[row.test] = run(row.test, None)
    if sound[row.test] != PASSED:
        return Verdict(row, False, "the test fails as it is, or does not run here")
    code = run(row.test, row.name)
    if code == FAILED:
        return Verdict(row, True, "fails without it")
    return Verdict(row, False, "PASSES WITHOUT IT" if code == PASSED else f"pytest ended with {code}")


def main(arguments: list[str]) -> int:
    rows = [row for row in ledger.rows() if row.status == "works" and row.direction == "in"]
    if arguments:
        rows = [row for row in rows if row.name.startswith(tuple(arguments))]
    sound: dict[str, int] = {}
    bad = 0
    for number, row in enumerate(rows, 1):
        verdict = judge(row, sound)
        bad += not verdict.holds
        mark = "ok " if verdict.holds else "BAD"
        print(f"{mark} {number:3}/{len(rows)} {row.name:80} {verdict.words}", flush=True)
    print(f"{len(rows) - bad} of {len(rows)} members have an effect that their test shows")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
