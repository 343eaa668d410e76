"""Keeps the slots' holders across restarts of the control process, so that counts stay with what they were counted for.

Lies in the run directory; worthless after a restart of the whole server (the counters begin anew), and then harmless.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mooring.domain.endpoint import EndpointKey
from mooring.domain.ids import EndpointName, Scope
from mooring.reconcile.table import VariantKey

logger = logging.getLogger(__name__)

MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Slots by their holders."""

    instances: Mapping[str, int] = field(default_factory=dict)
    variants: Mapping[VariantKey, int] = field(default_factory=dict)


class _Variant(msgspec.Struct, frozen=True):
    account: str
    region: str
    endpoint: str
    variant: str
    slot: int


class _File(msgspec.Struct, frozen=True):
    instances: dict[str, int]
    variants: list[_Variant]


def load(path: Path) -> Held:
    """What was saved last; nothing where there is no such file or it cannot be understood."""
    try:
        with path.open("rb") as file:
            saved = msgspec.json.decode(file.read(MAX_BYTES), type=_File)
    except (FileNotFoundError, msgspec.DecodeError):
        return Held()
    return Held(
        instances=saved.instances,
        variants={_key(variant): variant.slot for variant in saved.variants},
    )


def _key(saved: _Variant) -> VariantKey:
    scope = Scope(account=saved.account, region=saved.region)
    return VariantKey(EndpointKey(scope=scope, name=EndpointName(saved.endpoint)), saved.variant)


def save(path: Path, held: Held) -> None:
    """Replace the file in one step. Not synced: it need only outlive this process, not the machine."""
    variants = [
        _Variant(key.endpoint.scope.account, key.endpoint.scope.region, key.endpoint.name, key.variant, slot)
        for key, slot in held.variants.items()
    ]
    content = msgspec.json.encode(_File(instances=dict(held.instances), variants=variants))
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(content)
    os.replace(temporary, path)


class Keeper:
    """Saves the newest holders in a thread of its own, which waits behind no other work of this process. Its owner runs
    `run` as a task; a disk that hangs delays nobody for longer than they say.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="slots")
        self._newest = Held()
        self._noted = 0
        self._tried = 0
        self._wanted = asyncio.Event()
        self._moved = asyncio.Event()
        self.failed = False  # the newest state that was tried is not in the file

    async def load(self) -> Held:
        """What an earlier life of this process saved."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, load, self._path)

    def note(self, held: Held) -> None:
        """This is the state now."""
        self._newest = held
        self._noted += 1
        self._wanted.set()

    async def kept(self, *, timeout_s: float) -> bool:
        """Wait until what was noted so far is written or could not be; False when the time is over first."""
        noted = self._noted
        try:
            async with asyncio.timeout(timeout_s):
                while self._tried < noted:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Write, for ever; what was noted meanwhile is written once, as its newest state."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            held, noted = self._newest, self._noted
            try:
                await loop.run_in_executor(self._thread, save, self._path, held)
                self.failed = False
            except OSError:
                logger.exception("cannot write %s", self._path)
                self.failed = True
            self._tried = noted
            self._moved.set()
            self._moved = asyncio.Event()

    def close(self) -> None:
        """After `run` has ended. A write under way ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)
