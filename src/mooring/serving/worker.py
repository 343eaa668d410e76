"""A worker process: loads the model, then answers one request after the other until the front hangs up.

Forked by the front, which has loaded nothing and runs no thread, so that user code finds a clean process: its main thread,
its own copy of every library. As in the AWS containers each worker loads the model itself.
"""

import atexit
import ctypes
import json
import os
import signal
import socket
import sys
import time
import traceback
from typing import Any, Callable

from mooring.serving import channel, wire
from mooring.serving.handler import Answer, Handler
from mooring.serving.loading import import_script, versions
from mooring.serving.problems import LoadFailure
from mooring.serving.settings import Settings

_PR_SET_PDEATHSIG = 1


def run_forked(sock: socket.socket, settings: Settings, front_pid: int, *, tells: bool) -> None:
    """Be the worker on this end of a socket pair, in a process just forked. Does not return. `tells`: it says in the log how
    it found the model; one worker does so for all.
    """
    code = 1
    try:
        _become_worker(sock, front_pid)
        _serve(channel.WorkerEnd(sock), settings, say if tells else _say_nothing)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(code)


def _become_worker(sock: socket.socket, front_pid: int) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT):
        # the front says when to stop. Not SIG_IGN: programs that user code starts would inherit it
        signal.signal(number, _do_nothing)
    keep = sock.fileno()
    # no connection and no other worker's channel may stay open in here
    os.closerange(3, keep)
    os.closerange(keep + 1, _max_fd())
    _die_with(front_pid)


def _do_nothing(number: int, frame: Any) -> None:
    return


def _max_fd() -> int:
    """One past the highest open descriptor."""
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    except (OSError, ValueError):
        return 4096


def _die_with(front_pid: int) -> None:
    """SIGKILL when the front ends in any way (Linux)."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return  # elsewhere the end of the channel has to do
    if os.getppid() != front_pid:
        os._exit(1)  # it was gone before we asked


def _leave(code: int) -> None:
    """End without unwinding the front's frames below us, but with the user's exit functions."""
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def say(text: str) -> None:
    """A line of the server's own in the log."""
    sys.stderr.write("mooring: {}\n".format(text))
    sys.stderr.flush()


def _say_nothing(text: str) -> None:
    return


def _serve(end: channel.WorkerEnd, settings: Settings, tell: Callable[[str], None]) -> None:
    handler = _load(end, settings, tell)
    if handler is None:
        return
    while True:
        request = end.receive()
        if request is None:
            return
        kind, head, body = request
        if kind == channel.PARAMETERS:
            answer = handler.parameters()
        else:
            answer = handler.invoke(body, channel.unpack_headers(head))
        end.send(channel.ANSWER, _response(answer))


def _load(end: channel.WorkerEnd, settings: Settings, tell: Callable[[str], None]) -> Any:
    """The handler; None after a failure, which the front has been told."""
    began = time.monotonic()
    try:
        handler = Handler(settings, import_script(settings, tell), tell)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit: a script that calls exit() cannot be served
        end.send(channel.FAILED, _report(error).encode("utf-8", "replace"))
        return None
    about = {
        "execution_parameters": handler.execution_parameters is not None,
        "versions": versions(),
        "load_s": round(time.monotonic() - began, 3),
    }
    end.send(channel.READY, json.dumps(about).encode("utf-8"))
    return handler


def _report(error: BaseException) -> str:
    """Traceback, then the cause in one line: the last line is what a FailureReason shows."""
    if isinstance(error, LoadFailure):
        return str(error)
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    text = " ".join(str(error).split())
    return "{}{}: {} ({})".format(trace, type(error).__name__, text[:600], versions())


def _response(answer: Answer) -> bytes:
    try:
        return wire.response(
            answer.status, answer.body, answer.content_type, headers=answer.headers, reason=answer.reason
        )
    except (ValueError, UnicodeError, TypeError) as error:
        say("the handler's answer cannot be sent: {}".format(error))
        return wire.response(500, "{}\n".format(error).encode("utf-8", "replace"), "text/plain")
