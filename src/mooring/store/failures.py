"""What a failing database means to a caller: StoreError, retryable or not. Pure."""

import sqlalchemy as sa

from mooring.store.base import StoreError

# Primary result codes of SQLite (the low byte) that another try may not meet again: a full disk is emptied, a lock let go.
_RETRYABLE_SQLITE = {
    5: "the database is locked by another process",  # BUSY
    6: "the database is locked by another process",  # LOCKED
    7: "out of memory",  # NOMEM
    9: "the statement was interrupted",  # INTERRUPT
    10: "the disk refused to read or write",  # IOERR
    13: "no space is left for the database",  # FULL
}
_FINAL_SQLITE = {
    8: "the database cannot be written: read-only",  # READONLY
    11: "the database is damaged",  # CORRUPT
    14: "the database file cannot be opened",  # CANTOPEN
    26: "the file is not a database",  # NOTADB
}


def translate(error: sa.exc.SQLAlchemyError) -> StoreError:
    """The StoreError to raise in place of a database error (with it as the cause)."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    if isinstance(code, int):
        primary = code & 0xFF
        if primary in _RETRYABLE_SQLITE:
            return StoreError(_RETRYABLE_SQLITE[primary], retryable=True)
        if primary in _FINAL_SQLITE:
            return StoreError(_FINAL_SQLITE[primary], retryable=False)
    if isinstance(error, sa.exc.TimeoutError):
        return StoreError("no database connection became free in time", retryable=True)
    return StoreError(f"the database failed: {type(error).__name__}", retryable=False)
