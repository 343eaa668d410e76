"""The coverage ledger: every member of the API, what the code takes, and the tests that show its effect.

Read by generate_coverage.py and effects.py. A test shows a member with `@pytest.mark.shows("CreateModel.ModelName")` (of
the request) or `("DescribeModel->CreationTime")` (of the answer); markers are found by reading the tests' syntax trees,
nothing is run.
"""

import ast
import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mooring.control.members import SUPPORTED
from mooring.protocol.offered import OFFERED

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = ROOT / "docs" / "api_members.csv"

Status = Literal["works", "planned", "refused"]


class LedgerError(Exception):
    """A marker or table names what the API does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One member of one operation."""

    operation: str
    direction: str  # in | out
    member: str
    required: bool
    in_seed: bool
    status: Status
    note: str
    test: str | None  # node id

    @property
    def name(self) -> str:
        """As in a marker."""
        return f"{self.operation}{'.' if self.direction == 'in' else '->'}{self.member}"


def markers(tests: Path = ROOT / "tests") -> dict[str, str]:
    """Member → id of the first test that is marked with it."""
    found: dict[str, str] = {}
    for path in sorted(tests.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for node_id, member in _marked(tree.body, path.relative_to(tests.parent).as_posix()):
            found.setdefault(member, node_id)
    return found


def _marked(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from _marked(statement.body, f"{prefix}::{statement.name}")
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for decorator in statement.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.shows":
                    for argument in decorator.args:
                        yield f"{prefix}::{statement.name}", ast.literal_eval(argument)


def rows() -> list[Row]:
    """The whole ledger, in the table's order. Raises LedgerError."""
    with MEMBERS.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    shown = markers()
    order = {operation: place for place, operation in enumerate(dict.fromkeys(line["operation"] for line in table))}
    table.sort(key=lambda line: order[line["operation"]])
    ledger = [_row(line, shown) for line in table]
    unknown = shown.keys() - {row.name for row in ledger}
    unknown |= {
        f"{operation}.{path}"
        for operation, paths in SUPPORTED.items()
        for path in paths
        if not any(row.operation == operation and row.member == path for row in ledger)
    }
    if unknown:
        raise LedgerError(f"not members of {MEMBERS.name}: {', '.join(sorted(unknown))}")
    return ledger


def _row(line: Mapping[str, str], shown: Mapping[str, str]) -> Row:
    operation, direction, member = line["operation"], line["direction"], line["member"]
    in_seed = line["named_in_seed"] == "yes"
    mark = f"{operation}{'.' if direction == 'in' else '->'}{member}"
    test = _test_of(mark, shown)
    status, note = _not_shown(operation, direction, member, in_seed)
    return Row(
        operation=operation,
        direction=direction,
        member=member,
        required=line["required"] == "yes",
        in_seed=in_seed,
        status="works" if test else status,
        note="" if test else note,
        test=test,
    )


def _test_of(mark: str, shown: Mapping[str, str]) -> str | None:
    """The member's own test, or one of a member inside it: what drops the whole drops the part."""
    if mark in shown:
        return shown[mark]
    inside = (mark + ".", mark + "[]")
    return next((shown[name] for name in sorted(shown) if name.startswith(inside)), None)


def _not_shown(operation: str, direction: str, member: str, in_seed: bool) -> tuple[Status, str]:
    if operation not in OFFERED["sagemaker"] and operation != "InvokeEndpoint":
        return "planned", "the operation is not offered yet"
    if direction == "in" and operation in SUPPORTED:
        if member in SUPPORTED[operation]:
            return "planned", "taken; a test that shows its effect is to come"
        if not in_seed:
            return "refused", "by name"
        return "planned", "refused by name until then"
    return "planned", ""
