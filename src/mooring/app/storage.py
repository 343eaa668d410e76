"""Object storage as the control process uses it: one client, shown to each user in the form that it asked for.

control.context.Artifacts    is there model data?          runtime.artifacts.ObjectStore    fetch it, errors by status
"""

import asyncio
import logging
from pathlib import Path

from mooring.control.context import Existence
from mooring.domain.routing import Credential
from mooring.kit.unixpath import SocketPath
from mooring.s3.base import BadUriError, DeniedError, NotFoundError
from mooring.s3.client import S3Access, S3ObjectStore

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.02
_HEAD_DEADLINE_S = 10.0


class Objects:
    """See the module."""

    def __init__(self, *, url: str, socket_path: Path, region: str, credential: Credential) -> None:
        self._socket_path = socket_path
        self.store = S3ObjectStore(
            S3Access(
                endpoint_url=url,
                region=region,
                access_key=credential.access_key,
                secret_key=credential.secret_key,
            )
        )

    async def exists(self, uri: str) -> Existence:
        """See control.context.Artifacts."""
        try:
            found = await self.store.stat(uri, deadline_s=_HEAD_DEADLINE_S)
        except DeniedError:
            return "denied"
        except (BadUriError, NotFoundError):
            return "no"
        return "no" if found is None else "yes"

    async def wait_ready(self, *, timeout_s: float) -> bool:
        """Whether the S3 process answers requests (its socket is open long before)."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:  # another process's state: there is no event to wait for
                    if await self._answers():
                        return True
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError:
            return False

    async def _answers(self) -> bool:
        place = SocketPath(str(self._socket_path))
        try:
            reader, writer = await asyncio.open_unix_connection(place.address)
        except OSError as error:
            logger.debug("the S3 process cannot be reached: %s", error)
            return False
        finally:
            place.close()
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            line = await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
        return line.startswith(b"HTTP/1.1 4")  # unsigned, so it is refused; 5xx: not yet

    async def aclose(self) -> None:
        """Let go of connections."""
        await self.store.aclose()
