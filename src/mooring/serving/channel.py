"""Frames between the front and a worker, over one socket pair; never more than one request in it.

    front ─▶ worker    kind u8 │ head bytes u32 │ body bytes u64 │ head │ body     head: lines `name:value`
    worker ─▶ front    kind u8 │ payload bytes u64 │ payload                       payload of ANSWER: the HTTP response

Pure packing, and the worker's blocking ends. The front reads and writes without blocking, in `workers`.
"""

import socket
import struct
from typing import Dict, Mapping, Optional, Tuple

INVOKE = 1
PARAMETERS = 2

READY = 1
FAILED = 2
ANSWER = 3

_REQUEST = struct.Struct(">BIQ")
REPLY = struct.Struct(">BQ")
_READ_BYTES = 1 << 18


def pack_request(kind: int, headers: Mapping[bytes, bytes], body: bytes) -> Tuple[bytes, bytes]:
    """(frame without body, body)."""
    head = b"\n".join([name + b":" + value for name, value in headers.items()])
    return _REQUEST.pack(kind, len(head), len(body)) + head, body


def unpack_headers(head: bytes) -> Dict[str, str]:
    """Header lines to lower-case names and text."""
    headers = {}
    for line in head.decode("latin-1").split("\n"):
        name, _, value = line.partition(":")
        headers[name] = value
    return headers


class WorkerEnd:
    """The worker's end: blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def receive(self) -> Optional[Tuple[int, bytes, bytes]]:
        """(kind, head, body) of the next request; None when the front is gone or wants us gone."""
        data = self._sock.recv(_READ_BYTES)
        if len(data) < _REQUEST.size:
            data = self._fill(data, _REQUEST.size)
        if not data:
            return None
        kind, head_bytes, body_bytes = _REQUEST.unpack_from(data)
        body_at = _REQUEST.size + head_bytes
        total = body_at + body_bytes
        if len(data) < total:
            data = self._fill(data, total)
            if not data:
                return None
        return kind, data[_REQUEST.size : body_at], data[body_at:total]

    def _fill(self, data: bytes, total: int) -> bytes:
        """`data` and what is missing to `total` bytes; empty at the end of the stream."""
        whole = bytearray(total)
        whole[: len(data)] = data
        view = memoryview(whole)[len(data) :]
        while view:
            count = self._sock.recv_into(view)
            if count == 0:
                return b""
            view = view[count:]
        return bytes(whole)

    def send(self, kind: int, payload: bytes) -> None:
        """One frame."""
        self._sock.sendall(REPLY.pack(kind, len(payload)) + payload)
