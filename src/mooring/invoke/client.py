"""One call to one instance: /ping for the reconciler's probes, POST for engines. A connection per call, closed after it.

Same protocol code as the gateway's, with a future in front; not for the request path. Must not know pools or routes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mooring import contract
from mooring.invoke import pool
from mooring.net import dial
from mooring.net.upstream import Upstream

MAX_ANSWER_BYTES = 32 << 20


class InvokeError(Exception):
    """The instance gave no answer. `sent`: the request may have run, so asking again may run it twice."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an instance answered; `fields` with lower-cased names."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _Call:
    """A Sink that gathers one answer into a future."""

    def __init__(self, done: asyncio.Future[Answer], max_bytes: int) -> None:
        self._done = done
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def answered(self, upstream: Upstream, *, ended: bool) -> None:
        """Gather."""
        parts = upstream.take()
        self._parts += parts
        self._size += sum(map(len, parts))
        if self._done.done():
            return
        if self._size > self._max_bytes:
            self._done.set_exception(InvokeError(f"the answer is over {self._max_bytes} bytes", sent=True))
            upstream.close()
        elif ended:
            answer = Answer(status=upstream.status, fields=tuple(upstream.fields), body=b"".join(self._parts))
            self._done.set_result(answer)

    def informed(self, status: int) -> None:
        """Interim answers say nothing here."""

    def lost(self, upstream: Upstream, error: Exception | None) -> None:
        """No answer."""
        if not self._done.done():
            self._done.set_exception(InvokeError(str(error or "the connection was closed"), sent=True))

    def upstream_pause(self) -> None:
        """The request is handed over whole."""

    def upstream_resume(self) -> None:
        """The request is handed over whole."""


async def ping(address: str, *, timeout_s: float) -> int | None:
    """The status that GET /ping gives; None when there is no answer in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return (await _call(address, b"GET", contract.PATH_PING, (), b"", timeout_s, MAX_ANSWER_BYTES)).status
    except (TimeoutError, InvokeError):
        return None


async def post(
    address: str,
    body: bytes,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    timeout_s: float,
    path: str = contract.PATH_INVOCATIONS,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
) -> Answer:
    """POST to an instance. Raises InvokeError when there is no whole answer in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _call(address, b"POST", path, headers, body, timeout_s, max_answer_bytes)
    except TimeoutError as error:
        raise InvokeError(f"no answer in {timeout_s:g} s", sent=True) from error


async def _call(
    address: str,
    method: bytes,
    path: str,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    timeout_s: float,
    max_bytes: int,
) -> Answer:
    done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    try:
        upstream = await pool.open_upstream(address, lambda _: None, timeout_s=timeout_s)
    except dial.ConnectError as error:
        raise InvokeError(str(error), sent=False) from error
    try:
        upstream.begin(_Call(done, max_bytes))
        fields = b"".join(b"%b: %b\r\n" % field for field in headers)
        if method == b"POST":
            fields += b"Content-Length: %d\r\n" % len(body)
        host = b"Host: localhost:%d\r\n" % contract.PORT
        upstream.send_parts(
            [b"%b %b HTTP/1.1\r\n%bConnection: close\r\n%b\r\n" % (method, path.encode(), host, fields), body]
        )
        return await done
    finally:
        upstream.close()
