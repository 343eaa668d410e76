"""Tags of any resource. → hosting.md section 10.5."""

from dataclasses import dataclass

MAX_TAGS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One tag; `aws:` keys are reserved."""

    key: str
    value: str
