"""Any sequence of operations on a log, by any number of processes, does what a plain list would do.

Hypothesis finds the sequences. The log in memory is tried at length, the one on JetStream briefly, with answers lost.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tests.bus.conftest import LogServer, LossyTransport

from lumina.bus.jetstream import JetStreamLog
from lumina.bus.log import Delivery
from lumina.bus.memory import MemoryLog
from lumina.bus.subjects import BLOB_STREAM, LOG_STREAM, Filter
from lumina.events.base import Event
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import UnloadReason, UnloadRequested
from lumina.events.record import Draft, Head, Recorded
from lumina.events.run import RunCancelRequested
from lumina.events.timer import TimerElapsed

CHECKPOINTS = 20
"""More than a delivery that is there needs to arrive."""
STREAMS = st.sampled_from([StreamId("r-1"), StreamId("r-2"), StreamId("local")])
AGENTS = st.sampled_from(["clock", "client", "governor"])
SLOTS = st.integers(0, 5)
EVENTS = st.one_of(
    st.integers(0, 3).map(lambda due: TimerElapsed(timer="t", due=due)),
    st.sampled_from([RunCancelRequested(reason="enough")]),
    st.sampled_from([UnloadRequested(node="local", instance="tiny#0", reason=UnloadReason.IDLE)]),
)
FILTERS = st.lists(
    st.builds(
        Filter,
        stream=st.none() | STREAMS,
        agent=st.none() | AGENTS,
        event=st.sampled_from([None, TimerElapsed, RunCancelRequested]),
    ),
    min_size=1,
    max_size=3,
)


class LogMachine(RuleBasedStateMachine):
    """The operations of `EventLog`, against a list of the records that were appended."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Recorded[Event]] = []

    @property
    @abstractmethod
    def log(self) -> JetStreamLog | MemoryLog:
        """The log, as one of several processes sees it."""

    @abstractmethod
    def call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """Run an async function to its end."""

    @rule(stream=STREAMS, agent=AGENTS, slot=SLOTS, event=EVENTS)
    def append(self, stream: StreamId, agent: str, slot: int, event: Event) -> None:
        """Append: an empty slot is filled at the end; a filled one answers with what stands there."""
        name = root_event_id(stream, name=f"{agent}/{slot}")
        draft = Draft(event=event, id=name, stream=stream, agent=agent, time_ms=slot, causation=None)
        recorded = self.call(self.log.append, draft)
        standing = [each for each in self.records if each.id == name]
        if standing:
            assert recorded == standing[0]
            return
        chain = [each for each in self.records if (each.stream, each.agent) == (stream, agent)]
        assert recorded.seq == len(self.records) + 1
        assert recorded.position == len(chain) + 1
        assert recorded.previous == (chain[-1].digest if chain else Head().digest)
        assert recorded.event == event
        self.records.append(recorded)

    @rule(stream=STREAMS, agent=AGENTS, slot=SLOTS)
    def look(self, stream: StreamId, agent: str, slot: int) -> None:
        """`find`, `head` and `last` agree with the list."""
        name = root_event_id(stream, name=f"{agent}/{slot}")
        chain = [each for each in self.records if (each.stream, each.agent) == (stream, agent)]
        found = self.call(self.log.find, name, stream=stream, agent=agent)
        assert found == next((each for each in chain if each.id == name), None)
        head = self.call(self.log.head, stream, agent=agent)
        assert (head.seq, head.position) == ((chain[-1].seq, len(chain)) if chain else (0, 0))
        last = self.call(self.log.last, Filter(stream=stream, agent=agent))
        assert last == (chain[-1] if chain else None)
        assert self.call(self.log.last_seq) == len(self.records)

    @rule(filters=FILTERS, bounds=st.tuples(st.integers(0, 40), st.integers(0, 40)))
    def read(self, filters: list[Filter], bounds: tuple[int, int]) -> None:
        """Read: it yields what the filters match, in order, within the bounds; following begins the same way."""
        after, until = min(bounds[0], len(self.records)), bounds[1]
        wanted = [each for each in self.records if each.seq > after and any(_wants(one, each) for one in filters)]

        async def both() -> tuple[list[Recorded[Event]], list[Recorded[Event]]]:
            part = [each async for each in self.log.read(filters, after=after, until=until)]
            followed: list[Recorded[Event]] = []
            with anyio.fail_after(20):
                async with aclosing(self.log.follow(filters, after=after)) as source:
                    while len(followed) < len(wanted):
                        followed.append(await anext(source))
            return part, followed

        part, followed = self.call(both)
        assert part == [each for each in wanted if each.seq <= until]
        assert followed == wanted


def _wants(which: Filter, recorded: Recorded[Event]) -> bool:
    return (
        which.stream in {None, recorded.stream}
        and which.agent in {None, recorded.agent}
        and (which.event is None or isinstance(recorded.event, which.event))
    )


class LoopMachine(RuleBasedStateMachine):
    """A machine whose steps run on one event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._context = start_blocking_portal()
        self.portal: BlockingPortal = self._context.__enter__()

    def call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """Run an async function to its end."""

        async def run() -> Any:
            return await function(*arguments, **options)

        return self.portal.call(run)

    def teardown(self) -> None:
        """Stop the event loop."""
        self._context.__exit__(None, None, None)


class MemoryMachine(LoopMachine, LogMachine):
    """The log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._log = MemoryLog()

    @property
    def log(self) -> MemoryLog:
        """See `LogMachine`."""
        return self._log

    @invariant()
    def stands(self) -> None:
        """Compare all records."""
        assert list(self._log.records) == self.records


class WorkMachine(LoopMachine):
    """The requests of one worker role in memory, under a clock that only this machine turns."""

    ACK_WAIT_S = 10.0
    RETRY_S = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.due: dict[int, float] = {}
        self.held: dict[int, Delivery] = {}
        self._log = MemoryLog(clock=lambda: self.now, ack_wait_s=self.ACK_WAIT_S)

    @rule(wanted=st.booleans())
    def request(self, wanted: bool) -> None:
        """Append a request for the role, or another record."""
        event = UnloadRequested(node="local", instance="tiny#0", reason=UnloadReason.IDLE)
        number = len(self._log.records)
        stream = StreamId("local")
        recorded = self.call(
            self._log.append,
            Draft(
                event=event if wanted else TimerElapsed(timer="t", due=0),
                id=root_event_id(stream, name=str(number)),
                stream=stream,
                agent="governor",
                time_ms=0,
                causation=None,
            ),
        )
        if wanted:
            self.due[recorded.seq] = self.now

    @rule()
    def take(self) -> None:
        """Take a request that is due; if there is one, one comes."""
        free = {seq for seq, due in self.due.items() if due <= self.now}
        delivery = self.call(self._take)
        assert (delivery is not None) == bool(free)
        if delivery is not None:
            assert delivery.recorded.seq in free
            self.held[delivery.recorded.seq] = delivery
            self.due[delivery.recorded.seq] = self.now + self.ACK_WAIT_S

    async def _take(self) -> Delivery | None:
        taken: list[Delivery] = []

        async def take() -> None:
            async with aclosing(self._log.work("specialist")) as deliveries:
                taken.append(await anext(deliveries))

        async with anyio.create_task_group() as group:
            group.start_soon(take)
            for _ in range(CHECKPOINTS):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        return taken[0] if taken else None

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self._log.tick()

    @precondition(lambda self: self.held)
    @rule(choice=st.integers(0, 20), what=st.sampled_from(["ack", "retry", "in_progress"]))
    def answer(self, choice: int, what: str) -> None:
        """Acknowledge, give back, or say that it goes on; a late acknowledgement counts as well."""
        seq = sorted(self.held)[choice % len(self.held)]
        delivery = self.held[seq]
        match what:
            case "ack":
                self.call(delivery.ack)
                del self.held[seq], self.due[seq]
            case "retry":
                self.call(delivery.retry, delay_s=self.RETRY_S)
                self.due[seq] = self.now + self.RETRY_S
            case _:
                self.call(delivery.in_progress)
                self.due[seq] = self.now + self.ACK_WAIT_S


class JetStreamMachine(LogMachine):
    """The log on a real server, written by three processes whose answers can get lost."""

    portal: ClassVar[BlockingPortal]
    server: ClassVar[LogServer]
    transports: ClassVar[list[LossyTransport]]

    def __init__(self) -> None:
        super().__init__()
        self.portal.call(self._empty)
        self.turn = 0
        self.logs = [JetStreamLog(transport) for transport in self.transports]

    async def _empty(self) -> None:
        async with self.server.admin() as js:
            for stream in (LOG_STREAM, BLOB_STREAM):
                if stream in [each.config.name for each in await js.streams_info()]:
                    await js.delete_stream(stream)
        await self.server.set_up()

    @property
    def log(self) -> JetStreamLog:
        """See `LogMachine`."""
        return self.logs[self.turn]

    def call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        """See `LogMachine`."""

        async def run() -> Any:
            return await function(*arguments, **options)

        return self.portal.call(run)

    @rule(turn=st.integers(0, 2), forget=st.booleans(), lose=st.booleans())
    def another_process(self, turn: int, forget: bool, lose: bool) -> None:
        """Another process goes on, perhaps a fresh one, perhaps one that will not hear the next acknowledgement."""
        self.turn = turn
        if forget:
            self.logs[turn] = JetStreamLog(self.transports[turn])
        self.transports[turn].lose = int(lose)


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Run a server and three connections for all examples."""
    server = LogServer(folder, sync="2m")
    server.start()
    JetStreamMachine.server = server
    try:
        with start_blocking_portal() as portal:
            JetStreamMachine.portal = portal
            contexts: list[AbstractContextManager[LossyTransport]] = [
                portal.wrap_async_context_manager(server.lossy()) for _ in range(3)
            ]
            JetStreamMachine.transports = [each.__enter__() for each in contexts]
            try:
                yield
            finally:
                for each in contexts:
                    each.__exit__(None, None, None)
    finally:
        server.kill()


@pytest.mark.parametrize("machine", [MemoryMachine, WorkMachine])
def test_the_log_in_memory_is_a_list(machine: type[RuleBasedStateMachine]) -> None:
    """Every generated history of operations on `MemoryLog` gives what a list and a queue would give."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )


@pytest.mark.timeout(240)
def test_the_log_on_jetstream_is_a_list() -> None:
    """Every generated history of operations on `JetStreamLog` gives what a list would give."""
    with TemporaryDirectory() as folder, running(Path(folder)):
        run_state_machine_as_test(
            JetStreamMachine,
            settings=settings(
                max_examples=10,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            ),
        )
