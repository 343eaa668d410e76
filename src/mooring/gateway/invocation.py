"""One InvokeEndpoint request, from its head to its answer's last byte: an Exchange of the client's connection, a Sink of
the instance's, and a Caller of the pool.

                  end(), signature holds               connected()              whole, or more than is held back
    READING ──────────────▶ dispatch ──▶ CONNECTING ──────────────▶ SENT ─────────────────────────▶ STREAMING ─▶ DONE
                              ▲  │ no instance   │ unreachable()      │                                 │
                              │  ▼               ▼                    ├─ ModelError 424                 └ severed
                              └─ PARKED ◀────────┘                    └─ nothing was delivered: dispatch again

Every way out ends in `_done`, and the in-flight gauge is held exactly while `_instance` is set. Bodies are bytes in, bytes
out. A body is kept until its signature is proved and only then sent: nothing unproved ever reaches a model, and the body
is there to be sent to another instance when the first cannot be reached.

Called by gateway.server. Must not know the store, control or drivers.
"""

import enum
import errno
from hashlib import sha256
from time import perf_counter_ns
from typing import TYPE_CHECKING

from mooring import contract
from mooring.domain import errors
from mooring.gateway import forms, texts
from mooring.gateway.router import MODEL_LATENCY, OVERHEAD_LATENCY, Endpoint, Variant
from mooring.invoke import counts
from mooring.invoke.pool import Instance
from mooring.kit.counters import bucket_of
from mooring.net import dial, wire
from mooring.net.connection import Connection
from mooring.net.request import Request
from mooring.net.upstream import Upstream
from mooring.protocol import runtime, sigv4

if TYPE_CHECKING:
    from mooring.gateway.server import Gateway

_HOLD_BYTES = 64 << 10  # an answer is held back up to this, so that a crash within it is still a clean ModelError
_ERROR_BODY_BYTES = 1 << 20  # of a container's error that we read to the end
_ONE_WRITE_BYTES = 16 << 10  # a request up to this is one send() to the kernel: delivered whole or not at all
_JOIN_BYTES = 64 << 10  # copying is cheaper than a second system call up to this
_MAX_ATTEMPTS = 8

_START = f"POST {contract.PATH_INVOCATIONS} HTTP/1.1\r\nHost: localhost:{contract.PORT}\r\nContent-Length: ".encode()
# Container → client.
_RETURNED = {
    b"content-type": b"Content-Type: ",
    contract.HEADER_CUSTOM_ATTRIBUTES.lower().encode(): contract.HEADER_CUSTOM_ATTRIBUTES.encode() + b": ",
}
_BUCKETS = tuple(map(bucket_of, range(4096)))  # of most latencies in microseconds, without a call


class _State(enum.IntEnum):
    READING = 0
    PARKED = 1
    CONNECTING = 2
    SENT = 3
    STREAMING = 4
    DONE = 5


_READING, _PARKED, _CONNECTING, _SENT, _STREAMING, _DONE = _State


class Invocation:
    """See the module."""

    # What most requests never touch stands here, so that beginning one sets only what differs.
    account = ""
    _digest = sha256()  # of the body so far; an empty body's until its first part, which makes a new one
    _members: runtime.Invocation | None = None
    _forwarded = b"\r\n"  # the fields that go to the container, and the empty line
    _endpoint: Endpoint | None = None
    _variant: Variant | None = None
    _instance: Instance | None = None
    _upstream: Upstream | None = None
    _tried: tuple[Instance, ...] = ()
    _attempts = 0
    _park_deadline_s = 0.0
    _deadline_s = 0.0
    _sent_ns = 0
    _size = 0
    _unproved = 0  # of this body, in the gateway's count of bytes not proved yet
    _holding = 0  # of this body, in the gateway's count of bytes held
    _counted = False  # it was sent to a model
    _held: tuple[bytes, ...] | list[bytes] = ()  # of the answer, until it is whole or too long to hold
    _held_size = 0
    _chunked = False

    def __init__(
        self,
        gateway: "Gateway",
        connection: Connection,
        request: Request,
        head: sigv4.Head,
        name: bytes,
        operation: str | None,
        begun_ns: int,
    ) -> None:
        self._begun_ns = begun_ns
        self._gateway = gateway
        self._connection = connection
        self._request = request
        self._head = head
        self._name = name
        self._operation = operation
        self._state: _State = _READING
        self._parts: list[bytes] = []

    # Exchange: the client ----------------------------------------------------------------------------------------
    def body(self, data: bytes) -> None:
        """More of the body: hashed as it comes, kept until the hash is whole."""
        if self._state is not _READING:
            return
        length = len(data)
        gateway = self._gateway
        self._size += length
        if self._size > gateway.limits.max_body_bytes:
            self._refuse_size()
            return
        if not gateway.has_room(length):
            self._fail(texts.busy())
            return
        self._unproved += length
        self._holding += length
        gateway.unproved_bytes += length
        gateway.held_bytes += length
        if self._parts:
            self._digest.update(data)
        else:
            self._digest = sha256(data)
        self._parts.append(data)

    def end(self) -> None:
        """The whole body is there: prove who sent it, then what is asked, then act."""
        if self._state is not _READING:
            return
        gateway = self._gateway
        gateway.unproved_bytes -= self._unproved
        self._unproved = 0
        try:
            self.account = sigv4.finish(self._head, self._digest.hexdigest()).account
            if self._operation is not None:
                raise texts.not_offered(self._operation)
            self._members, self._forwarded = gateway.read_members(self._name, self._request.headers)
            if self._connection.whole:
                gateway.remember(
                    self._connection, self._request, self._head, self._name, self._members, self._forwarded
                )
            gateway.flights.add(self)
            self._dispatch()
        except errors.ServiceError as error:
            self._fail(error)

    def begin_proved(self, body: bytes, form: forms.Form) -> None:
        """In place of body() and end(), for a request that was proved by its form. There is room for its body."""
        gateway = self._gateway
        self._size = self._holding = len(body)
        gateway.held_bytes += self._holding
        self._parts.append(body)
        self.account = form.head.identity.account
        self._members = form.members
        self._forwarded = form.forwarded
        gateway.flights.add(self)
        try:
            self._dispatch()
        except errors.ServiceError as error:
            self._fail(error)

    def abort(self) -> None:
        """The client is gone. The instance's connection is closed: a model may notice and stop."""
        if self._state is _DONE:
            return
        if self._counted:
            self._count(model_error=False, status=0)
        self._done()

    def pause(self) -> None:
        """The client reads slowly."""
        if self._upstream is not None and self._state is _STREAMING:
            self._upstream.pause()

    def resume(self) -> None:
        """The client caught up."""
        if self._upstream is not None and self._state is _STREAMING:
            self._deadline_s = self._gateway.loop.time() + self._gateway.limits.invocation_timeout_s
            self._upstream.resume()

    # the gateway -------------------------------------------------------------------------------------------------
    def retry(self) -> None:
        """Parked: a new table, or some time passed."""
        if self._state is not _PARKED:
            return
        self._tried = ()
        self._attempts = 0
        try:
            self._dispatch()
        except errors.ServiceError as error:
            self._fail(error)

    def sweep(self, now_s: float) -> None:
        """Look at the deadline."""
        if now_s < self._deadline_s or self._connection.paused:
            return
        if self._state is _SENT:
            self._fail_model(self._timed_out())
        elif self._state is _STREAMING:
            self._break_off()

    # Caller: the pool --------------------------------------------------------------------------------------------
    def connected(self, instance: Instance, upstream: Upstream) -> bool:
        """A fresh connection."""
        if self._state is not _CONNECTING or self._instance is not instance:
            return False
        if not upstream.usable():
            self.unreachable(instance, dial.ConnectError("closed at once"))
            return True
        self._send(upstream, self._gateway.loop.time())
        return True

    def unreachable(self, instance: Instance, error: dial.ConnectError) -> None:
        """Nothing was sent: another instance may be asked."""
        if self._state is not _CONNECTING or self._instance is not instance:
            return
        self._let_go()
        self._tried = (*self._tried, instance)
        self._again()

    # Sink: the instance ------------------------------------------------------------------------------------------
    def answered(self, upstream: Upstream, *, ended: bool) -> None:
        """A part of the answer, or the last of it."""
        parts, upstream.parts = upstream.parts, []
        if self._state is _STREAMING:
            self._stream(parts, ended=ended)
            return
        status = upstream.status
        if 200 <= status < 300:
            if ended and not self._held:
                self._succeed(upstream, parts)
                return
            self._held = [*self._held, *parts]
            if ended:
                self._succeed(upstream, list(self._held))
                return
            self._held_size += sum(map(len, parts))
            if self._held_size > _HOLD_BYTES:
                self._begin_streaming(upstream)
            return
        self._held = [*self._held, *parts]
        self._held_size += sum(map(len, parts))
        if ended or self._held_size > _ERROR_BODY_BYTES:
            self._fail_model(self._model_answered(status, whole=ended), status=status, upstream_done=ended)

    def informed(self, status: int) -> None:
        """Interim answers are the instance's and ours; the client got its own 100 from us."""

    def lost(self, upstream: Upstream, error: Exception | None) -> None:
        """The connection broke, or what came was not HTTP."""
        self._upstream = None
        if self._state is _STREAMING:
            self._break_off()
            return
        if self._state is not _SENT:
            return
        if self._undelivered(upstream, error):
            self._let_go()
            self._again()
            return
        if upstream.status >= 300:
            # A status came, its body did not: the status is what the model said.
            self._held = [*self._held, *upstream.take()]
            self._fail_model(self._model_answered(upstream.status, whole=False), status=upstream.status)
            return
        self._fail_model(self._no_answer())

    def upstream_pause(self) -> None:
        """The request was handed over whole; its size is bounded."""

    def upstream_resume(self) -> None:
        """See upstream_pause."""

    # deciding ----------------------------------------------------------------------------------------------------
    def _dispatch(self) -> None:
        """Choose by the newest table, and send or connect; without an instance, park. Raises a ServiceError."""
        gateway, members = self._gateway, self._members
        assert members is not None
        name = members.endpoint_name
        endpoint = gateway.router.find(self.account, name)
        if endpoint is None:
            raise texts.endpoint_not_found(name, self.account)
        self._endpoint = endpoint
        # A choice by weight is kept while its variant exists: choosing again would move traffic off a variant in need.
        target = members.target_variant or (self._variant.name if self._variant is not None else None)
        variant = endpoint.by_name.get(target) if target is not None else None
        if variant is None:
            if members.target_variant is not None:
                raise texts.variant_not_found(members.target_variant, name, self.account)
            variant = endpoint.only or endpoint.pick(gateway.random)
            if variant is None:
                raise texts.no_traffic(name, self.account)
        self._variant = variant
        instance = variant.pool.pick(gateway.random, self._tried)
        if instance is None:
            self._park()
            return
        self._instance = instance
        instance.begin()
        now_s = gateway.loop.time()
        upstream = instance.take(now_s)
        if upstream is not None:
            self._send(upstream, now_s)
        else:
            self._state = _CONNECTING
            instance.connect(self)

    def _again(self) -> None:
        self._attempts += 1
        if self._attempts >= _MAX_ATTEMPTS:
            self._park()
            return
        try:
            self._dispatch()
        except errors.ServiceError as error:
            self._fail(error)

    def _park(self) -> None:
        gateway = self._gateway
        now_s = gateway.loop.time()
        if self._park_deadline_s == 0.0:
            self._park_deadline_s = now_s + gateway.limits.admission_wait_s
        if now_s < self._park_deadline_s and gateway.park(self):
            self._state = _PARKED
            return
        if self._variant is not None:
            gateway.word[self._variant.group + counts.REFUSED] += 1
        self._fail(texts.unavailable(self._name.decode("ascii", "replace")))

    def _undelivered(self, upstream: Upstream, error: Exception | None) -> bool:
        """Whether the request certainly never reached the instance, so that sending it elsewhere cannot run it twice.

        An idle connection may have been closed by its peer (a keep-alive time-out, a crash) an instant before we wrote.
        Only one sign proves that nothing arrived: the first and only send() of this request failed with EPIPE, for then
        the kernel knew before it took a byte that the peer was gone. Anything else (an end, a reset after a send that
        succeeded) may come from a model that ran and then died, and inference is not ours to repeat: ModelError.
        """
        if upstream.heard or not upstream.reused or self._size > _ONE_WRITE_BYTES:
            return False
        return isinstance(error, OSError) and error.errno == errno.EPIPE

    # sending -----------------------------------------------------------------------------------------------------
    def _send(self, upstream: Upstream, now_s: float) -> None:
        gateway = self._gateway
        size, parts = self._size, self._parts
        self._upstream = upstream
        self._state = _SENT
        self._counted = True
        self._deadline_s = now_s + gateway.limits.invocation_timeout_s
        upstream.begin(self)
        self._sent_ns = perf_counter_ns()
        if size <= _JOIN_BYTES:
            upstream.send(b"".join((_START, b"%d\r\n" % size, self._forwarded, *parts)))
        else:
            upstream.send_parts([_START, b"%d\r\n" % size, self._forwarded, *parts])
        if size > _ONE_WRITE_BYTES:
            self._parts = []  # never sent twice: see _undelivered

    # answering ---------------------------------------------------------------------------------------------------
    def _head_fields(self, upstream: Upstream) -> bytes:
        variant = self._variant
        assert variant is not None
        head = upstream.head
        returned = head.note if head is not None else None
        if returned is None:
            returned = _returned(upstream.fields)
            if head is not None:
                head.note = returned
        return b"".join((b"x-amzn-RequestId: ", self._gateway.next_id().encode(), b"\r\n", variant.line, returned))

    def _succeed(self, upstream: Upstream, parts: list[bytes]) -> None:
        fields = self._head_fields(upstream)
        connection = self._connection
        self._count(model_error=False, status=upstream.status)
        self._give_back()
        self._done()
        connection.reply(200, fields, parts[0] if len(parts) == 1 else b"".join(parts))

    def _begin_streaming(self, upstream: Upstream) -> None:
        connection = self._connection
        length = next((value for name, value in upstream.fields if name == b"content-length"), None)
        self._chunked = length is None and self._request.version_1_1
        framing = b""
        if length is not None:
            framing = b"Content-Length: %b\r\n" % length
        elif self._chunked:
            framing = b"Transfer-Encoding: chunked\r\n"
        head = b"%b%b%b%b" % (wire.status_line(200), self._head_fields(upstream), framing, connection.head_end())
        connection.send(head)
        self._state = _STREAMING
        held, self._held = self._held, ()
        self._stream(list(held), ended=False)

    def _stream(self, parts: list[bytes], *, ended: bool) -> None:
        connection = self._connection
        self._deadline_s = self._gateway.loop.time() + self._gateway.limits.invocation_timeout_s
        for part in parts:
            connection.send(wire.chunk(part) if self._chunked else part)
        if ended:
            if self._chunked:
                connection.send(wire.LAST_CHUNK)
            self._count(model_error=False, status=200)
            self._give_back()
            self._done()
            connection.finish()
        elif connection.paused and self._upstream is not None:
            self._upstream.pause()

    def _break_off(self) -> None:
        """The head is out and the rest will not come: the client must see that the answer is not whole."""
        connection = self._connection
        self._count(model_error=True, status=0)
        self._done()
        connection.sever()

    def _refuse_size(self) -> None:
        connection, limit, request_id = self._connection, self._gateway.limits.max_body_bytes, self._gateway.next_id()
        self._done()
        reply = runtime.too_large_reply(limit, request_id)
        connection.reply(reply.status, _lines(reply.headers), reply.body)

    def _fail(self, error: errors.ServiceError) -> None:
        connection, request_id = self._connection, self._gateway.next_id()
        self._done()
        reply = runtime.error_reply(error, request_id)
        connection.reply(reply.status, _lines(reply.headers), reply.body)

    def _fail_model(self, error: errors.ModelError, *, status: int = 0, upstream_done: bool = False) -> None:
        self._count(model_error=True, status=status)
        if upstream_done:
            self._give_back()
        self._fail(error)

    def _model_answered(self, status: int, *, whole: bool) -> errors.ModelError:
        endpoint, variant = self._endpoint, self._variant
        assert endpoint is not None
        assert variant is not None
        return texts.model_answered(
            status,
            b"".join(self._held),
            whole=whole,
            container=variant.container,
            tail=texts.see(endpoint.log_group, endpoint.account),
            log_arn=endpoint.log_arn,
        )

    def _timed_out(self) -> errors.ModelError:
        endpoint, variant = self._endpoint, self._variant
        assert endpoint is not None
        assert variant is not None
        tail = texts.see(endpoint.log_group, endpoint.account)
        return texts.timed_out(container=variant.container, tail=tail, log_arn=endpoint.log_arn)

    def _no_answer(self) -> errors.ModelError:
        assert self._endpoint is not None
        return texts.no_answer(endpoint=self._endpoint.name, log_arn=self._endpoint.log_arn)

    # ending ------------------------------------------------------------------------------------------------------
    def _count(self, *, model_error: bool, status: int) -> None:
        variant = self._variant
        if variant is None:
            return
        word, group = self._gateway.word, variant.group
        word[group + counts.INVOCATIONS] += 1
        if model_error:
            word[group + counts.INVOCATION_MODEL_ERRORS] += 1
            if 400 <= status < 500:
                word[group + counts.INVOCATION_4XX] += 1
            elif status >= 500:
                word[group + counts.INVOCATION_5XX] += 1
        now_ns = perf_counter_ns()
        model_us = (now_ns - self._sent_ns) // 1000
        overhead_us = (self._sent_ns - self._begun_ns) // 1000
        model_bucket = _BUCKETS[model_us] if model_us < 4096 else bucket_of(model_us)
        overhead_bucket = _BUCKETS[overhead_us] if overhead_us < 4096 else bucket_of(overhead_us)
        word[variant.histograms + MODEL_LATENCY + model_bucket] += 1
        word[variant.histograms + OVERHEAD_LATENCY + overhead_bucket] += 1

    def _give_back(self) -> None:
        """The answer was whole: the connection may serve another request."""
        upstream, instance = self._upstream, self._instance
        self._upstream = None
        if upstream is not None and instance is not None:
            instance.give(upstream, self._gateway.loop.time())

    def _let_go(self) -> None:
        """Leave the instance: the gauge falls here and nowhere else."""
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.end()

    def _done(self) -> None:
        """Hold nothing any more. A connection that was not given back is closed."""
        self._state = _DONE
        gateway = self._gateway
        gateway.flights.discard(self)
        if gateway.parked:
            gateway.parked.pop(self, None)
        if self._unproved:
            gateway.unproved_bytes -= self._unproved
            self._unproved = 0
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()
        if self._instance is not None:
            self._let_go()
        gateway.held_bytes -= self._holding
        self._holding = 0
        self._parts = []
        self._held = ()


def _returned(fields: list[tuple[bytes, bytes]]) -> bytes:
    """What of a container's head goes to the client."""
    return b"".join([_RETURNED[name] + value + b"\r\n" for name, value in fields if name in _RETURNED])


def _lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in headers])
