"""Each role does its job on a real server, and nothing else: not directly, and not through the server's answers."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import get_args

import anyio
import pytest
from tests.bus.conftest import LogServer

from lumina.bus.accounts import ANSWERS_S_MAX
from lumina.bus.credentials import load_endpoint, make_key
from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import Forbidden
from lumina.bus.nats_transport import connect
from lumina.bus.permissions import AGENT_ROLES, AgentRole, permissions_of, written_by
from lumina.bus.pulls import PULL_GRACE_S, PULL_S
from lumina.bus.server import EmbeddedServer, embedded_server
from lumina.bus.subjects import (
    BLOB_CHUNK_PREFIX,
    BLOB_STREAM,
    JS_API,
    LOG_ALL,
    LOG_STREAM,
    TAIL_ALL,
    Filter,
    direct_get_subject,
    live_subject,
    next_request_subject,
    stream_facts_subject,
    subject_matches,
    subject_of,
    worker_consumer,
)
from lumina.bus.topology import ensure_topology
from lumina.bus.transport import Message, Transport
from lumina.bus.workers import WORKER_ROLES
from lumina.events.base import Event
from lumina.events.catalogue import SPOKEN_BY, WRITERS, Agent
from lumina.events.ids import StreamId
from lumina.events.run import RunCancelRequested, RunClosed

pytestmark = pytest.mark.anyio

RUN = StreamId("r-1")
AGENTS: tuple[str, ...] = get_args(Agent)
ROLES = pytest.mark.parametrize("role", AGENT_ROLES)


def concrete(pattern: str) -> str:
    """Return a subject that `pattern` matches."""
    return pattern.replace("*", RUN).replace(".>", ".x")


def subjects_of(agent: str) -> list[str]:
    """Return a subject for every type of event, as if `agent` wrote it in the run."""
    patterns = {pattern for role in AGENT_ROLES for pattern in written_by(role)}
    subjects = set()
    for pattern in patterns:
        tokens = pattern.split(".")
        subjects.add(".".join((*tokens[:3], RUN, agent, *tokens[5:])))
    return sorted(subjects)


CLOSED = Filter(stream=RUN, agent="orchestrator", event=RunClosed).subject()


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """One server for all tests of this file; they only add to its log."""
    async with embedded_server(tmp_path_factory.mktemp("permissions"), sync="default") as running:
        yield running


@pytest.fixture
async def connections(server: EmbeddedServer) -> AsyncIterator["Connections"]:
    """Keep connections by role, closed at the end of the test."""
    async with AsyncExitStack() as stack:
        yield Connections(server, stack)


class Connections:
    def __init__(self, server: EmbeddedServer, stack: AsyncExitStack) -> None:
        self._server = server
        self._stack = stack

    async def of(self, role: str) -> Transport:
        return await self._stack.enter_async_context(connect(self._server.endpoint(role)))


async def refused(transport: Transport, subject: str, *, payload: bytes = b"{}") -> bool:
    """Whether the server forbids this connection to publish `subject`."""
    try:
        await transport.request(subject, payload=payload, timeout_s=5)
    except Forbidden:
        return True
    return False


async def call(transport: Transport, subject: str, body: object = None) -> dict[str, object]:
    payload = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, object] = json.loads((await transport.request(subject, payload=payload)).payload)
    return answer


async def last_seq(transport: Transport) -> int:
    facts = await call(transport, stream_facts_subject(LOG_STREAM))
    state = facts["state"]
    assert isinstance(state, dict)
    return int(state["last_seq"])


@pytest.mark.parametrize("event", WRITERS)
def test_every_event_has_a_writer_who_may_write_it(event: type[Event]) -> None:
    """Each writer in the catalogue has the permission for its event; some through a speaker."""
    for writer in WRITERS[event]:
        for speaker in SPOKEN_BY.get(writer, (writer,)):
            [role] = [each for each in AGENT_ROLES if each == speaker]
            assert Filter(agent=writer, event=event).subject() in permissions_of(role).publish


@ROLES
def test_nobody_writes_in_anothers_name(role: AgentRole) -> None:
    """No log permission of a role covers a subject that carries another agent's name, but those that it speaks for."""
    own = {role} | {writer for writer, speakers in SPOKEN_BY.items() if role in speakers}
    for agent in set(AGENTS) - own:
        for subject in subjects_of(agent):
            assert not any(subject_matches(subject, pattern=pattern) for pattern in permissions_of(role).publish)


@ROLES
def test_no_permission_changes_streams_or_consumers(role: AgentRole) -> None:
    """What a role may publish contains no JetStream call but reading, pulling its own work and acknowledging it."""
    allowed = ("DIRECT.GET.", "STREAM.INFO.", "CONSUMER.MSG.NEXT.")
    for pattern in permissions_of(role).publish:
        assert pattern != ">"
        if pattern.startswith(JS_API):
            assert pattern.removeprefix(f"{JS_API}.").startswith(allowed)


@ROLES
async def test_a_role_writes_its_own_events(connections: Connections, role: AgentRole) -> None:
    """Each of a role's own subjects is stored and acknowledged."""
    mine = await connections.of(role)
    for pattern in written_by(role):
        answer = await call(mine, concrete(pattern), {})
        assert answer["stream"] == LOG_STREAM


@ROLES
async def test_a_role_writes_nobody_elses_events(connections: Connections, role: AgentRole) -> None:
    """Every other agent's subjects are refused by the server, for every type of event."""
    mine = await connections.of(role)
    allowed = {concrete(pattern) for pattern in written_by(role)}
    before = await last_seq(mine)
    for agent in AGENTS:
        for subject in set(subjects_of(agent)) - allowed:
            assert await refused(mine, subject), f"{role} wrote {subject}"
    assert await last_seq(mine) == before


async def test_the_sandbox_cannot_say_that_a_run_is_closed(connections: Connections) -> None:
    """`run.closed` is the orchestrator's word; the sandbox's credentials are refused."""
    assert f"lumina.log.run.{RUN}.orchestrator.closed-v1" == CLOSED
    assert await refused(await connections.of("sandbox"), CLOSED)


@ROLES
async def test_no_answer_of_the_server_is_written_in_anothers_name(connections: Connections, role: AgentRole) -> None:
    """A request that names another agent's subject for its answer has the server write nothing there.

    Without accounts per role this is a forgery: the server answers with its own authority, and a direct get of a
    prepared blob puts any bytes and headers there.
    """
    mine = await connections.of(role)
    admin = await connections.of("admin")
    target = CLOSED if role != "orchestrator" else f"lumina.log.execution.{RUN}.sandbox.finished-v1"
    prepared = await call(mine, f"{BLOB_CHUNK_PREFIX}.prepared-{role}", {"kind": "run.closed.v1"})
    own = concrete(written_by(role)[0])
    before = await last_seq(admin)
    seq = {"seq": prepared["seq"]}
    requests: list[tuple[str, object]] = [
        (direct_get_subject(BLOB_STREAM), seq),
        (direct_get_subject(BLOB_STREAM), {**seq, "batch": 1, "next_by_subj": f"{BLOB_CHUNK_PREFIX}.>"}),
        (f"{direct_get_subject(BLOB_STREAM)}.{BLOB_CHUNK_PREFIX}.prepared-{role}", None),
        (direct_get_subject(LOG_STREAM), {"seq": before}),
        (stream_facts_subject(LOG_STREAM), None),
        (f"{BLOB_CHUNK_PREFIX}.other", {}),
        (own, {}),
    ]
    if role in WORKER_ROLES:
        requests.append((next_request_subject(role), {"batch": 1, "expires": 1_000_000}))
    for subject, body in requests:
        payload = b"" if body is None else json.dumps(body).encode()
        await mine.publish(subject, payload=payload, reply=target)
    await anyio.sleep(0.2)
    assert await last_seq(admin) == before + 1  # `own`, and nothing else


async def test_without_accounts_an_answer_is_a_forgery(log_server: LogServer) -> None:
    """The same request, in one shared account, has the server write the record: this is why the accounts exist."""
    endpoint = Endpoint(url=log_server.url, name="sandbox")
    await ensure_topology(endpoint)
    async with connect(endpoint) as sandbox, sandbox.subscribe(TAIL_ALL) as tail:
        await call(sandbox, f"{BLOB_CHUNK_PREFIX}.prepared", {"kind": "run.closed.v1"})
        await sandbox.publish(direct_get_subject(BLOB_STREAM), payload=b'{"seq":1}', reply=CLOSED)
        [forged] = await tail.take(timeout_s=5)
    assert isinstance(forged, Message)
    assert (forged.headers["Nats-Subject"], json.loads(forged.payload)) == (CLOSED, {"kind": "run.closed.v1"})


@ROLES
async def test_no_trace_of_a_message_is_written_in_anothers_name(connections: Connections, role: AgentRole) -> None:
    """The header that has the server publish what became of a message writes nothing to another agent's subject."""
    mine, admin = await connections.of(role), await connections.of("admin")
    target = CLOSED if role != "orchestrator" else f"lumina.log.execution.{RUN}.sandbox.finished-v1"
    before = await last_seq(admin)
    for subject in (
        concrete(written_by(role)[0]),
        f"{BLOB_CHUNK_PREFIX}.traced",
        live_subject(RUN, agent=role, what="x"),
    ):
        await mine.publish(subject, payload=b"{}", headers={"Nats-Trace-Dest": target})
    await anyio.sleep(0.2)
    assert await last_seq(admin) == before  # Not even the event itself: such a message is refused altogether.


@ROLES
async def test_only_the_admin_changes_the_streams(connections: Connections, role: AgentRole) -> None:
    """Creating, updating, purging and deleting streams, records and consumers is refused to every agent."""
    mine = await connections.of(role)
    consumer = worker_consumer("sandbox")
    for stream in (LOG_STREAM, BLOB_STREAM):
        for what in ("CREATE", "UPDATE", "DELETE", "PURGE", "MSG.DELETE", "SNAPSHOT", "RESTORE"):
            assert await refused(mine, f"{JS_API}.STREAM.{what}.{stream}")
    for what in ("CREATE", "DELETE", "PAUSE", "UNPIN"):
        assert await refused(mine, f"{JS_API}.CONSUMER.{what}.{LOG_STREAM}.{consumer}")
    assert await refused(mine, f"{JS_API}.CONSUMER.CREATE.{LOG_STREAM}")
    assert await refused(mine, f"{JS_API}.CONSUMER.DURABLE.CREATE.{LOG_STREAM}.{consumer}")
    assert await refused(mine, f"{JS_API}.STREAM.CREATE.MINE")


@ROLES
async def test_nobody_listens_where_it_should_not(connections: Connections, role: AgentRole) -> None:
    """Another role's replies, all replies and the log's own subjects can't be subscribed to."""
    mine = await connections.of(role)
    other = "validator" if role != "validator" else "sandbox"
    for subject in (f"_INBOX_{other}.>", "_INBOX.>", LOG_ALL, ">", "$JS.>"):
        async with mine.subscribe(subject) as subscription:
            with pytest.raises(Forbidden):
                await subscription.take(timeout_s=5)


@pytest.mark.parametrize("role", WORKER_ROLES)
async def test_a_worker_pulls_and_acknowledges_its_own_work(connections: Connections, role: str) -> None:
    """A request of its kind arrives with the log's subject and position, and is acknowledged for good."""
    mine, admin = await connections.of(role), await connections.of("admin")
    wanted = concrete(WORKER_ROLES[role].filters[0].subject()).replace(f".{RUN}.{RUN}.", f".{RUN}.governor.")
    await call(admin, wanted, {})
    facts_subject = f"{JS_API}.CONSUMER.INFO.{LOG_STREAM}.{worker_consumer(role)}"
    async with mine.subscribe(mine.new_inbox()) as subscription:
        pending = 1
        while pending:
            await subscription.ask(next_request_subject(role), payload=b'{"batch":1,"expires":5000000000}')
            [request] = await subscription.take(timeout_s=6)
            assert isinstance(request, Message)
            assert subject_matches(request.subject, pattern=LOG_ALL)
            await mine.request(request.reply, payload=b"+ACK")
            facts = await call(admin, facts_subject)
            pending = int(str(facts["num_pending"]))
    assert facts["num_ack_pending"] == 0


@ROLES
async def test_nobody_pulls_anothers_work(connections: Connections, role: AgentRole) -> None:
    """Asking for or acknowledging another role's requests is refused."""
    mine = await connections.of(role)
    for other in set(WORKER_ROLES) - {role}:
        assert await refused(mine, next_request_subject(other))
        assert await refused(mine, f"$JS.ACK.{LOG_STREAM}.{worker_consumer(other)}.1.1.1.1.0")


async def test_a_dead_workers_open_pull_swallows_nothing(server: EmbeddedServer, connections: Connections) -> None:
    """A request that lands after a worker died with an open pull goes to the next worker at once."""
    admin, alive = await connections.of("admin"), await connections.of("validator")
    ask = b'{"batch":1,"expires":20000000000}'
    async with connect(server.endpoint("validator")) as dying, dying.subscribe(inbox := dying.new_inbox()):
        await dying.publish(next_request_subject("validator"), payload=ask, reply=inbox)
        await dying.request(stream_facts_subject(LOG_STREAM))  # It has arrived.
    await anyio.sleep(0.2)  # The server has seen it go.
    wanted = concrete(WORKER_ROLES["validator"].filters[0].subject()).replace(f".{RUN}.{RUN}.", f".{RUN}.orchestrator.")
    stored = await call(admin, wanted, {})
    async with alive.subscribe(alive.new_inbox()) as subscription:
        await subscription.ask(next_request_subject("validator"), payload=ask)
        while True:
            arrivals = await subscription.take(timeout_s=5)
            assert arrivals, "the request went to the dead worker"
            [request] = arrivals
            assert isinstance(request, Message)
            await alive.request(request.reply, payload=b"+ACK")
            if int(request.reply.split(".")[5]) == stored["seq"]:
                break
            await subscription.ask(next_request_subject("validator"), payload=ask)


@ROLES
async def test_everyone_reads_the_log_and_hears_its_tail(connections: Connections, role: AgentRole) -> None:
    """Single and batched direct gets answer, and a record is announced as it lands."""
    mine, client = await connections.of(role), await connections.of("client")
    written = concrete(written_by("client")[0])
    first = await call(client, written, {"n": 1})
    async with mine.subscribe(TAIL_ALL) as tail:
        await mine.request(stream_facts_subject(LOG_STREAM))
        await call(client, written, {"n": 2})
        [heard] = await tail.take(timeout_s=5)
        assert isinstance(heard, Message)
        assert heard.headers["Nats-Subject"] == written
    replies = await mine.open(
        direct_get_subject(LOG_STREAM),
        payload=json.dumps({"seq": first["seq"], "batch": 10, "next_by_subj": LOG_ALL}).encode(),
    )
    found: list[Message] = []
    while not found or found[-1].status != 204:
        found += await replies.take(timeout_s=5)
    replies.close()
    assert [json.loads(each.payload) for each in found[:2]] == [{"n": 1}, {"n": 2}]


@ROLES
async def test_live_subjects_carry_their_speakers_name(connections: Connections, role: AgentRole) -> None:
    """A role speaks under its own name, is heard by the others, and can't speak under another's."""
    mine = await connections.of(role)
    other: AgentRole = "client" if role != "client" else "sandbox"
    listener = await connections.of(other)
    said = live_subject(RUN, agent=role, what="tokens")
    async with listener.subscribe("lumina.live.>") as heard:
        await listener.request(stream_facts_subject(LOG_STREAM))
        await mine.publish(said, payload=b"hello")
        [message] = await heard.take(timeout_s=5)
    assert isinstance(message, Message)
    assert (message.subject, message.payload) == (said, b"hello")
    assert await refused(mine, live_subject(RUN, agent=other, what="tokens"))


@ROLES
async def test_blobs_can_be_added_and_not_rolled_up(connections: Connections, role: AgentRole) -> None:
    """The header that would erase what is stored is refused, for one subject and for the whole bucket."""
    mine = await connections.of(role)
    subject = f"{BLOB_CHUNK_PREFIX}.rolled-{role}"
    kept = await call(mine, subject, {"part": 1})
    for how in ("all", "sub"):
        answer = json.loads((await mine.request(subject, payload=b"x", headers={"Nats-Rollup": how})).payload)
        assert answer["error"]["err_code"] == 10111
    found = await mine.request(direct_get_subject(BLOB_STREAM), payload=json.dumps({"seq": kept["seq"]}).encode())
    assert json.loads(found.payload) == {"part": 1}


async def test_an_unknown_key_is_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    """A key that this server did not make opens nothing, and nor does no key at all."""
    make_key(tmp_path, role="sandbox")
    stranger = load_endpoint(tmp_path, role="sandbox", url=server.url)
    for endpoint in (stranger, Endpoint(url=server.url, name="sandbox")):
        with pytest.raises(Forbidden):
            async with connect(endpoint):
                pass


def test_subject_of_is_what_the_permissions_cover() -> None:
    """The subject that the log builds for an event is one that its writer's permissions match."""
    event = RunCancelRequested(reason="That is enough.")
    subject = subject_of(event, stream=RUN, agent="client")
    assert any(subject_matches(subject, pattern=pattern) for pattern in written_by("client"))


def test_a_pull_ends_before_its_answers_are_cut_off() -> None:
    """The server forgets where answers go after a while; an open pull for work must have ended by then."""
    assert PULL_S + PULL_GRACE_S < ANSWERS_S_MAX
