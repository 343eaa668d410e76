"""Length-prefixed frames over a stream: 4 bytes big-endian length, then that many bytes (msgspec JSON by convention)."""

import asyncio
import struct

MAX_FRAME_BYTES = 64 << 20


class FrameError(Exception):
    """The peer sent something that is no frame."""


def pack(payload: bytes) -> bytes:
    """One frame."""
    if len(payload) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(payload)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return struct.pack(">I", len(payload)) + payload


async def read(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame's payload; None when the peer closed between frames."""
    try:
        head = await reader.readexactly(4)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise FrameError("the stream ended inside a frame") from error
        return None
    (length,) = struct.unpack(">I", head)
    if length > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise FrameError("the stream ended inside a frame") from error
