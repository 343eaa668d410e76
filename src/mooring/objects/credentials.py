"""The keys that requests may be signed with, as control last sent them over the route channel."""

from collections.abc import Iterable

from mooring.domain.routing import Credential
from mooring.protocol.sigv4 import Verifier


class CredentialSource:
    """Empty until the first `replace`; until then nothing can be served."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._known: tuple[Credential, ...] | None = None
        self.verifier: Verifier | None = None

    def replace(self, credentials: Iterable[Credential]) -> None:
        """From now on these keys count, and no others."""
        known = tuple(credentials)
        if known != self._known:  # a publication of routes alone keeps the derived keys
            self._known = known
            self.verifier = Verifier(known, self._region)
