"""kill -9 of a process that writes, again and again: every write it acknowledged is there, and the database opens."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mooring.domain import ids
from mooring.store.sqlite import SqliteStore

SCOPE = ids.Scope(account="000000000000", region="us-east-1")

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from mooring.domain import ids
from mooring.domain.model import Container, Model
from mooring.domain.tags import Tag
from mooring.store.sqlite import SqliteStore

async def main(path, round_):
    store = SqliteStore(Path(path))
    await store.start()
    scope = ids.Scope(account="000000000000", region="us-east-1")
    async def write(worker):
        for number in range(100000):
            name = f"m-{round_}-{worker}-{number}"
            model = Model(scope=scope, name=name, created_at_s=1.0, containers=(Container(image="i"),))
            await store.create_model(model, [Tag(key="k", value=name)])
            os.write(1, (name + "\\n").encode())  # the acknowledgement
    await asyncio.gather(*(write(worker) for worker in range(8)))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.parametrize("seed", [7])
async def test_every_acknowledged_write_survives_kill_9(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "state.db"
    dice = random.Random(seed)
    acknowledged: list[str] = []
    for round_ in range(6):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(round_)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            count = dice.randrange(0, 60) if round_ else 20
            for _ in range(count):
                line = process.stdout.readline()
                assert line, "the writer ended on its own"
                acknowledged.append(line.decode().strip())
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        rest, _ = process.communicate()
        acknowledged += [line for line in rest.decode().splitlines(keepends=True) if line.endswith("\n")]
    store = SqliteStore(path)
    await store.start()
    try:
        for name in (line.strip() for line in acknowledged):
            model = await store.get_model(SCOPE, name)
            assert model is not None, name
            assert await store.get_tags(model.arn) == {"k": name}
    finally:
        await store.aclose()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert len(acknowledged) > 50
