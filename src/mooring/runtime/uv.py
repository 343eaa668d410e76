"""Runs uv: one command at a time, its words line by line to the instance's log, its failures as DriverError.

Called by `runtime.environments` alone. Every command gets a small environment without secrets and never outlives this
process. Two ways to run one: trusted, which only unpacks wheels and may use the shared cache; and with packages' own code,
which runs in the sandbox, and whose cache is its own, so that it cannot reach what others will install. Knows nothing of
images.
"""

import asyncio
import ctypes
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from mooring.runtime.driver import DriverError, Progress

MAX_LINE_CHARS = 2000
TAIL_LINES = 40
_READ_BYTES = 1 << 16
_REAP_S = 5.0
_PR_SET_PDEATHSIG = 1

# What an operator may have set for uv or for any program that goes out to the network; nothing else is passed on.
_PASSED = (
    "PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INSECURE_HOST",
    "UV_HTTP_RETRIES",
    "UV_SYSTEM_CERTS",
    "UV_NATIVE_TLS",
)
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# uv 0.13: what it says when the index cannot be reached, in crates/uv-client; "not found in the registry" is none of these
_NETWORK = re.compile(
    r"error sending request|tcp connect error|dns error|failed to lookup address|connection (?:refused|reset|closed)"
    r"|timed out|timeout|HTTP status server error|status code 5\d\d|\b(?:429|500|502|503|504)\b.*(?:error|requests|gateway)"
    r"|could not resolve (?:host|proxy)|failed to connect to"
    r"|network was disabled|request failed after|stream error|incomplete message",
    re.IGNORECASE,
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


class Wrap(Protocol):
    """Puts a command into a sandbox: `argv` comes back prefixed. It must let the command write `writable`, read `readable`
    (both absolute, at the same places) and what a system needs to run programs, and reach the package index.
    """

    def __call__(self, argv: Sequence[str], *, writable: Sequence[Path], readable: Sequence[Path]) -> Sequence[str]:
        """The command to run instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uv:
    """How uv is run here."""

    program: str
    cache_dir: Path
    index_url: str | None
    environ: Mapping[str, str]
    wrap: Wrap | None = None

    def environment(self, home: Path, cache_dir: Path) -> dict[str, str]:
        """The command's whole environment. The index may hold a password, so it is here and not in the arguments."""
        chosen = {name: self.environ[name] for name in _PASSED if name in self.environ}
        if self.index_url is not None:
            chosen["UV_DEFAULT_INDEX"] = self.index_url
            chosen.pop("UV_INDEX_URL", None)
        return {
            "PATH": os.defpath,
            **chosen,
            "HOME": str(home),
            "TMPDIR": str(home),
            "LC_ALL": "C.UTF-8",
            "UV_CACHE_DIR": str(cache_dir),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_HTTP_TIMEOUT": "30",
            "NO_COLOR": "1",
        }

    async def run(
        self,
        arguments: Sequence[str],
        *,
        directory: Path,
        runs_code: bool,
        readable: Sequence[Path],
        timeout_s: float,
        what: str,
        progress: Progress,
    ) -> None:
        """Run `uv <arguments>` in `directory`, which it may write. `runs_code`: packages' own code may run. Raises
        DriverError; `what` begins the reason ("scikit-learn 1.2.1: its packages cannot be installed").
        """
        cache_dir = directory / "uv" if runs_code else self.cache_dir
        tail: deque[str] = deque(maxlen=TAIL_LINES)

        def take(line: str) -> None:
            tail.append(line)
            progress(line)

        try:
            code = await self.execute(
                [self.program, *arguments],
                directory=directory,
                cache_dir=cache_dir,
                runs_code=runs_code,
                readable=readable,
                timeout_s=timeout_s,
                take=take,
            )
        except OSError as error:
            raise DriverError(f"{what}: {self.program} cannot be started: {error.strerror}.", retryable=True) from error
        except TimeoutError as error:
            raise DriverError(f"{what}: not done after {timeout_s:.0f} s.\n{_words(tail)}", retryable=True) from error
        if code != 0:
            raise failure(what, code, list(tail))

    async def execute(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        cache_dir: Path,
        runs_code: bool,
        readable: Sequence[Path],
        timeout_s: float,
        take: Callable[[str], None],
    ) -> int:
        """Run any command as `run` does; its exit code. Raises OSError, TimeoutError."""
        home = directory / "home"
        await asyncio.to_thread(home.mkdir, exist_ok=True)
        if runs_code and self.wrap is not None:
            readable = (Path(self.program).parent, *self._files_of_settings(), *readable)
            argv = self.wrap(argv, writable=(directory,), readable=readable)
        return await _run(argv, directory, self.environment(home, cache_dir), timeout_s, take)

    def _files_of_settings(self) -> list[Path]:
        """Files that uv's environment points to."""
        names = [self.environ.get("SSL_CERT_FILE"), self.environ.get("SSL_CERT_DIR")]
        urls = [self.index_url, self.environ.get("UV_DEFAULT_INDEX"), self.environ.get("UV_FIND_LINKS")]
        names += [unquote(urlsplit(url).path) for url in urls if url and url.startswith("file:")]
        return [Path(name) for name in names if name and name.startswith("/")]


def failure(what: str, code: int, lines: Sequence[str]) -> DriverError:
    """What uv's last words mean."""
    words = _words(lines)
    if code < 0:
        return DriverError(f"{what}: uv was killed by signal {-code}.\n{words}", retryable=True)
    text = "\n".join(lines)
    return DriverError(f"{what}:\n{words}", retryable=bool(_NETWORK.search(text) or _DISK_FULL.search(text)))


def _words(lines: Sequence[str] | deque[str]) -> str:
    """From uv's last "error:" or "×" line on; all that was kept where there is none."""
    kept = list(lines)
    starts = [i for i, line in enumerate(kept) if line.lstrip().startswith(("error", "×", "  ×"))]
    return "\n".join(kept[starts[-1] :] if starts else kept[-10:]).strip()


async def _run(
    argv: Sequence[str], directory: Path, environment: Mapping[str, str], timeout_s: float, take: Callable[[str], None]
) -> int:
    process = await _start(argv, directory, environment)
    try:
        async with asyncio.timeout(timeout_s):
            assert process.stdout is not None
            await _read_lines(process.stdout, take)
            return await process.wait()
    finally:
        # the whole session: what a package's build started must not go on either
        _kill_group(process.pid)
        await to_the_end(_reap(process))


async def _start(argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a session of its own. Cancelled half-way, asyncio would kill the process alone, not what it began by then."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            cwd=directory,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_in_child,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await to_the_end(_end(starting))
        raise


async def _end(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    try:
        process = await starting
    except OSError:
        return  # nothing was started
    _kill_group(process.pid)
    await _reap(process)


async def to_the_end(cleaning: Coroutine[Any, Any, None]) -> None:
    """Await something short that must not be left half done, however often we are cancelled meanwhile."""
    task = asyncio.ensure_future(cleaning)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.done():
                raise
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


async def _reap(process: asyncio.subprocess.Process) -> None:
    """A killed process is waited for, and its pipe read to the end, so that nothing of it stays in the loop."""
    await process.wait()
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_REAP_S):
            while await process.stdout.read(_READ_BYTES):
                pass
    except TimeoutError:
        return  # something that left the session still holds the pipe


async def _read_lines(stream: asyncio.StreamReader, take: Callable[[str], None]) -> None:
    rest = ""
    while chunk := await stream.read(_READ_BYTES):
        *lines, rest = (rest + chunk.decode("utf-8", "replace")).split("\n")
        for line in lines:
            _take(line, take)
        rest = rest[-MAX_LINE_CHARS:]
    _take(rest, take)


def _take(line: str, take: Callable[[str], None]) -> None:
    clean = _ANSI.sub("", line).rstrip()[:MAX_LINE_CHARS]
    if clean:
        take(clean)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # all gone


def _load_prctl() -> Callable[[int, int], int] | None:
    try:
        prctl: Callable[[int, int], int] = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None  # not Linux
    return prctl


_prctl = _load_prctl()


def _in_child() -> None:
    """Between fork and exec: die with the server; files others may read (instances run as other users)."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.umask(0o022)
