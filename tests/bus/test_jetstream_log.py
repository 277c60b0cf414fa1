"""What only the log on JetStream can meet: a full store, records of other versions, many chains, heavy use."""

import anyio
import pytest
from tests.bus.conftest import LogServer

from lumina.bus.chains import Chains
from lumina.bus.errors import LogFull, PayloadTooLarge
from lumina.bus.jetstream import JetStreamLog
from lumina.bus.subjects import LOG_STREAM, Filter, subject_of, worker_consumer
from lumina.events.base import Event
from lumina.events.errors import UnknownEvent
from lumina.events.ids import StreamId, root_event_id
from lumina.events.node import UnloadReason, UnloadRequested
from lumina.events.record import Draft, Head, Sealed, chain, chain_digest, headers_of, to_headers
from lumina.events.timer import TimerElapsed

pytestmark = pytest.mark.anyio

RUN = StreamId("r-1")


def draft(number: int, *, stream: StreamId = RUN, event: Event | None = None) -> Draft[Event]:
    """Return a draft whose slot is named by `number`."""
    return Draft(
        event=event or TimerElapsed(timer="t", due=number),
        id=root_event_id(stream, name=str(number)),
        stream=stream,
        agent="clock",
        time_ms=number,
        causation=None,
    )


async def test_a_full_log_says_so_and_goes_on_when_there_is_room(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is stored when the log is full; the same append succeeds after room was made."""
    server = LogServer(tmp_path_factory.mktemp("full"), max_bytes=20_000)
    server.start()
    try:
        await server.set_up()
        async with server.transport() as transport:
            log = JetStreamLog(transport)
            with pytest.raises(LogFull, match="free disk space"):
                _ = [await log.append(draft(number)) for number in range(1_000)]
            stored = await log.last_seq()
            assert 0 < stored < 100
            async with server.admin() as js:
                config = (await js.stream_info(LOG_STREAM)).config
                config.max_bytes = 10_000_000
                await js.update_stream(config)
            assert (await log.append(draft(stored))).seq == stored + 1
            assert [each.seq async for each in log.read()] == list(range(1, stored + 2))
    finally:
        server.kill()


async def test_the_streams_own_limit_is_a_payload_too_large(log_server: LogServer) -> None:
    """A stream that takes only small messages refuses a record as the connection would."""
    await log_server.set_up()
    async with log_server.admin() as js:
        config = (await js.stream_info(LOG_STREAM)).config
        config.max_msg_size = 200
        await js.update_stream(config)
    async with log_server.transport() as transport:
        with pytest.raises(PayloadTooLarge):
            await JetStreamLog(transport).append(draft(1))


async def write_unknown(server: LogServer, log: JetStreamLog) -> None:
    """Append a record of a type that this version does not know, sealed as its writer would."""
    async with server.transport("newer") as transport:
        head = await log.head(RUN, agent="clock")
        recorded, body = chain(draft(77), after=head)
        sealed = Sealed(
            id=recorded.id,
            type="timer.renamed.v9",
            stream=RUN,
            agent="clock",
            time_ms=recorded.time_ms,
            causation=None,
            position=recorded.position,
            previous=recorded.previous,
            body=recorded.body,
            fields=recorded.fields,
        )
        headers = headers_of(sealed, digest=chain_digest(sealed))
        subject = subject_of(recorded.event, stream=RUN, agent="clock").replace("elapsed-v1", "renamed-v9")
        await transport.request(subject, payload=body, headers=headers)


async def test_a_newer_record_is_unknown_not_damaged(log_server: LogServer) -> None:
    """A reader is told which record it can't read; what came before is read, and chains go on behind it."""
    await log_server.set_up()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport)
        await log.append(draft(1))
        await write_unknown(log_server, log)
        seen: list[int] = []
        with pytest.raises(UnknownEvent, match="record 2"):
            await note(log, seen)
        assert seen == [1]
        third = await JetStreamLog(transport).append(draft(3))
        assert (third.seq, third.position) == (3, 3)


async def note(log: JetStreamLog, seen: list[int]) -> None:
    """Read everything and note the sequences."""
    async for recorded in log.read():
        seen += [recorded.seq]


async def test_a_request_that_cannot_be_read_is_terminated(log_server: LogServer) -> None:
    """A worker is not stopped by an undecodable request, and it does not come again."""
    await log_server.set_up()
    event = UnloadRequested(node="local", instance="tiny#0", reason=UnloadReason.IDLE)
    recorded, body = chain(draft(1, event=event), after=Head())
    subject = subject_of(event, stream=RUN, agent="clock")
    async with log_server.transport() as transport:
        await transport.request(subject, payload=body.replace(b"tiny", b"tony"), headers=to_headers(recorded))
        log = JetStreamLog(transport)
        sound = draft(2, stream=StreamId("r-2"), event=event)
        await log.append(sound)
        with anyio.fail_after(10):
            async for delivery in log.work("specialist"):
                assert delivery.recorded.id == sound.id
                await delivery.ack()
                break
    async with log_server.admin() as js:
        state = await js.consumer_info(LOG_STREAM, worker_consumer("specialist"))
        assert (state.num_ack_pending, state.num_pending) == (0, 0)


async def test_more_records_than_a_batch(log_server: LogServer) -> None:
    """Reading, finding and appending go over the borders of batches."""
    log_server.restart_with(sync="2m")
    await log_server.set_up()
    async with log_server.transport() as transport:
        log = JetStreamLog(transport)
        records = [await log.append(draft(number)) for number in range(1_300)]
        fresh = JetStreamLog(transport)
        assert [each async for each in fresh.read()] == records
        assert [each async for each in fresh.read([Filter(stream=RUN)], after=600, until=1_200)] == records[600:1_200]
        assert await fresh.append(draft(1_100)) == records[1_100]
        assert (await fresh.append(draft(1_300))).position == 1_301


async def test_chains_are_forgotten_and_read_again(log_server: LogServer) -> None:
    """With more chains than are kept, the oldest idle one is read from the log when it is needed again."""
    await log_server.set_up()
    chains = Chains(chains_max=3)
    kept = [chains.of(StreamId(f"r-{number}"), agent="clock") for number in range(3)]
    assert chains.of(StreamId("r-0"), agent="clock") is kept[0]
    async with kept[1].lock:
        chains.of(StreamId("r-3"), agent="clock")
        assert chains.of(StreamId("r-1"), agent="clock") is kept[1]
    assert chains.of(StreamId("r-2"), agent="clock") is not kept[2]
