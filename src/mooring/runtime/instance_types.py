"""Reads the instance type table: the packaged CSV, overridden and extended by the user's file. Called once by app."""

from importlib import resources
from pathlib import Path

from mooring.domain import capacity

MAX_FILE_BYTES = 1 << 20


def load(user_file: Path | None = None) -> dict[str, capacity.InstanceType]:
    """Types by name. The user's file is a CSV of the same columns; an empty cell keeps the packaged value.

    Raises capacity.TableError naming the file, or OSError.
    """
    packaged = resources.files("mooring.domain").joinpath("instance_types.csv").read_text(encoding="utf-8")
    table = capacity.parse_types(packaged)
    if user_file is None:
        return table
    if user_file.stat().st_size > MAX_FILE_BYTES:
        raise capacity.TableError(f"{user_file}: over {MAX_FILE_BYTES} bytes")
    try:
        return capacity.parse_types(user_file.read_text(encoding="utf-8"), base=table)
    except (capacity.TableError, UnicodeDecodeError) as error:
        raise capacity.TableError(f"{user_file}: {error}") from error
