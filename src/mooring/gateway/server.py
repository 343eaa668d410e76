"""The data-plane front of one worker: what all its invocations share.

    head ── begin() ─▶ Invocation ── proved ─▶ dispatch ─▶ instance ─▶ reply
                                       ▲           │ none
                                       └─ parked ◀─┘   retried at each table and each sweep, refused after admission_wait_s

Called by edge.worker. Must not know the store, control or drivers: traffic survives them (import contract).
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter_ns

from mooring.domain import errors, routing
from mooring.gateway import effects, texts
from mooring.gateway import forms as known
from mooring.gateway.invocation import Invocation
from mooring.gateway.members import MemberReader
from mooring.gateway.router import Router
from mooring.invoke.pool import Connector, PoolLimits, open_upstream
from mooring.kit import tasks
from mooring.kit.clock import Clock
from mooring.kit.counters import Counters
from mooring.net.connection import Connection
from mooring.net.request import REFUSED, Exchange, Request
from mooring.protocol import forms, runtime, sigv4

SWEEP_S = 0.1
_SERVICES = frozenset({"sagemaker"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """Bounds of one worker's invocations."""

    invocation_timeout_s: float = 60.0
    max_body_bytes: int = 25 << 20
    admission_wait_s: float = 5.0  # how long a request waits for an instance while there is none
    max_parked: int = 1024
    max_unproved_bytes: int = 256 << 20  # of bodies whose signature is not checked yet
    max_held_bytes: int = 1 << 30  # of all bodies, until they are answered
    pool: PoolLimits = field(default_factory=PoolLimits)


_TAILS = tuple(f"{number:03x}" for number in range(4096))


def _request_ids() -> Iterator[str]:
    """Ids in the form of a random UUID: unpredictable start, then counted, for a fraction of uuid4's price."""
    start = os.urandom(8).hex()
    prefix = f"{start[:8]}-{start[8:12]}-4{start[13:16]}-a{os.urandom(2).hex()[1:]}-"
    for number in itertools.count(int.from_bytes(os.urandom(4), "big")):
        block = f"{prefix}{number:09x}"
        for tail in _TAILS:
            yield block + tail


class Gateway:
    """See the module."""

    def __init__(
        self,
        *,
        region: str,
        worker: int,
        counters: Counters,
        limits: GatewayLimits,
        clock: Clock,
        random: Callable[[], float],
        group: tasks.Group,
        connector: Connector = open_upstream,
        drop_member: str | None = None,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.random = random
        self.word = counters.word
        self.loop = asyncio.get_running_loop()
        self.next_id = _request_ids().__next__
        self.router = Router(
            region=region, counters=counters, worker=worker, group=group, limits=limits.pool, connector=connector
        )
        self.flights: set[Invocation] = set()  # what the sweep looks at: parked, connecting or sent
        self.parked: dict[Invocation, None] = {}  # in order of arrival
        self.unproved_bytes = 0
        self.held_bytes = 0
        self.read_members = MemberReader().read
        self._region = region
        self._verifier = sigv4.Verifier((), region)
        self._forms = known.Forms()
        self._invocation = effects.without(drop_member)
        self._credentials: tuple[routing.Credential, ...] = ()
        self._sweeper: asyncio.TimerHandle | None = None

    # the edge's side ---------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin to sweep."""
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def close(self) -> None:
        """No more sweeps; every connection to an instance is closed."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.router.swap(routing.RouteTable(generation=0))

    def swap(self, table: routing.RouteTable) -> None:
        """Serve by this table from now on."""
        if table.credentials != self._credentials:
            self._credentials = table.credentials
            self._verifier = sigv4.Verifier(table.credentials, self._region)
            self._forms = known.Forms()  # what the old credentials proved is forgotten with them
        self.router.swap(table)
        self._retry_parked()

    def begin(self, connection: Connection, request: Request, name: bytes, operation: str | None = None) -> Exchange:
        """Take a request whose path is an invocation's. What its head tells is checked before its body is read.

        `operation`: it is this one, which is not offered; its caller must prove who it is all the same.
        """
        begun_ns = perf_counter_ns()
        limits = self.limits
        try:
            head = self._verifier.check_head(
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                now_s=self.clock.now_s(),
                services=_SERVICES,
            )
            length = request.length
            if length is not None:
                if length > limits.max_body_bytes:
                    send_reply(connection, runtime.too_large_reply(limits.max_body_bytes, self.next_id()))
                    return REFUSED
                if not self.has_room(length):
                    raise texts.busy()
        except errors.ServiceError as error:
            send_reply(connection, runtime.error_reply(error, self.next_id()))
            return REFUSED
        if request.expects_continue:
            connection.send_continue()
        return self._invocation(self, connection, request, head, name, operation, begun_ns)

    def recall(self, connection: Connection, data: bytes) -> bool | None:
        """Take a read that is one whole request in a form that its client was proved in before; a net.server.Recall."""
        begun_ns = perf_counter_ns()
        client = connection.memory
        if not isinstance(client, known.Acquaintance) or client.source is not self._forms:
            return False
        now_s = self.clock.now_s()
        for form in client.forms:
            body = form.prove(data, now_s)
            if body is None:
                if form.begins(data):
                    return None
                continue
            if len(body) > self.limits.max_body_bytes or not self.has_room(len(body)):
                return False  # refused where all are
            invocation = self._invocation(self, connection, form.request, form.head, form.name, None, begun_ns)
            connection.begin(invocation)
            invocation.begin_proved(body, form)
            return True
        return False

    def remember(
        self,
        connection: Connection,
        request: Request,
        head: sigv4.Head,
        name: bytes,
        members: runtime.Invocation,
        forwarded: bytes,
    ) -> None:
        """This request was read, checked and proved: its client may well send another like it."""
        client = connection.memory
        if not isinstance(client, known.Acquaintance) or client.source is not self._forms:
            client = connection.memory = known.Acquaintance(self._forms)
        if connection.whole and client.willing():
            form = self._forms.learn(
                connection.whole, name=name, request=request, head=head, members=members, forwarded=forwarded
            )
            if form is not None:
                client.add(form)

    def has_room(self, length: int) -> bool:
        """Whether a body of this length may be read."""
        limits = self.limits
        return (
            self.unproved_bytes + length <= limits.max_unproved_bytes
            and self.held_bytes + length <= limits.max_held_bytes
        )

    # the invocations' side ---------------------------------------------------------------------------------------
    def park(self, invocation: Invocation) -> bool:
        """Let it wait for an instance; False when too many wait already."""
        if len(self.parked) >= self.limits.max_parked:
            return False
        self.parked[invocation] = None
        return True

    # inside ------------------------------------------------------------------------------------------------------
    def _sweep(self) -> None:
        now_s = self.loop.time()
        for invocation in list(self.flights):
            invocation.sweep(now_s)
        self._retry_parked()
        self.router.sweep(now_s)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def _retry_parked(self) -> None:
        parked, self.parked = self.parked, {}
        for invocation in parked:
            invocation.retry()


def send_reply(connection: Connection, reply: forms.Reply) -> None:
    """An answer of protocol's making."""
    fields = b"".join([b"%b: %b\r\n" % one for one in reply.headers])
    connection.reply(reply.status, fields, reply.body)
