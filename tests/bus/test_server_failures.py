"""What can be wrong with a data folder or a server: each gets one sentence that names it and says what to do."""

import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest
from nats.js import api
from tests.bus.conftest import LogServer

from lumina.bus.address import known_log
from lumina.bus.credentials import keys_folder, load_endpoint
from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import BusError, CredentialsMissing, LogUnavailable, ServerFailed, TopologyRefused
from lumina.bus.folder import check_room, new_store_bytes
from lumina.bus.nats_transport import connect
from lumina.bus.server import embedded_server, find_trouble
from lumina.bus.startup import explain_exit, find_nats_server
from lumina.bus.subjects import BLOB_STREAM, LOG_ALL, LOG_ID_METADATA, LOG_STREAM, TAIL_ALL, worker_consumer
from lumina.bus.topology import ensure_topology

pytestmark = pytest.mark.anyio

SUBMITTED = "lumina.log.run.r-1.client.submitted-v1"


async def refusal(home: Path, *, port: int | None = None) -> str:
    """Start on `home`, which must fail, and return the sentence."""
    with pytest.raises(BusError) as failure:
        async with embedded_server(home, port=port):
            pass
    return str(failure.value)


async def used_folder(home: Path) -> Path:
    """Return a data folder whose log has a record and whose server has ended."""
    async with embedded_server(home) as running, connect(running.endpoint("client")) as client:
        await client.request(SUBMITTED, payload=b"{}")
    return home


def stream_folder(home: Path, stream: str) -> Path:
    """Return where the server keeps a stream."""
    [found] = (home / "nats" / "js" / "jetstream").glob(f"LUMINA/streams/{stream}")
    return found


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """A port that was asked for is not silently replaced."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        message = await refusal(tmp_path, port=taken.getsockname()[1])
    assert "the port is in use" in message
    assert "choose another port" in message


async def test_another_folders_server_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    """A port on which another NATS server greets is in use."""
    async with embedded_server(tmp_path / "a") as running:
        message = await refusal(tmp_path / "b", port=int(running.url.rpartition(":")[2]))
    assert "the port is in use" in message


async def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    """A data folder that can't be made is named."""
    (tmp_path / "home").write_text("I am a file")
    message = await refusal(tmp_path / "home")
    assert f"the data folder {tmp_path / 'home'} can't be written" in message


async def test_a_file_in_place_of_the_store(tmp_path: Path) -> None:
    """The server's own last words are in the sentence when its store can't be used."""
    (tmp_path / "nats").mkdir()
    (tmp_path / "nats" / "js").write_text("I am a file")
    message = await refusal(tmp_path)
    assert "the store folder can't be" in message
    assert "Its last words:" in message


def test_a_full_disk_is_noticed_before_the_start(tmp_path: Path) -> None:
    """With less room than a server needs, the sentence says how much is free."""
    check_room(tmp_path)
    with pytest.raises(ServerFailed, match=r"the disk of .* is full: \d+ MiB are free"):
        check_room(tmp_path, bytes_min=2**60)


def test_a_new_store_leaves_room_on_the_disk(tmp_path: Path) -> None:
    """The streams are full before the disk is."""
    assert 0 < new_store_bytes(tmp_path) < shutil.disk_usage(tmp_path).free


async def test_a_silent_server_is_explained(tmp_path: Path) -> None:
    """A healthy server has no trouble; one whose log tells of a full disk since its start has."""
    async with embedded_server(tmp_path):
        assert find_trouble(tmp_path) is None
        log = tmp_path / "nats" / "server.log"
        words = "[1] [ERR] JetStream failed to store a msg: write 1.blk: no space left on device"
        log.write_text(f"{words}\n{log.read_text()}")
        assert find_trouble(tmp_path) is None
        log.write_text(f"{log.read_text()}\n{words}\n")
        trouble = find_trouble(tmp_path)
    assert trouble is not None
    assert "the disk is full: make room" in trouble
    assert words in trouble


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("[FTL] Can't start JetStream: write x: no space left on device", "the disk is full: make room"),
        ("[FTL] Can't start JetStream: mkdir /x: permission denied", "can't be written"),
        ("[FTL] Can't start JetStream: mkdir /x: read-only file system", "read-only"),
        ("[FTL] Can't start JetStream: something never seen", "may be damaged"),
    ],
)
def test_the_servers_last_words_are_explained(tmp_path: Path, words: str, meaning: str) -> None:
    """What the server says before it gives up is turned into what to do, and quoted."""
    (tmp_path / "server.log").write_text(f"old line\n{words}\n")
    message = explain_exit(tmp_path, status=1, log_from=len("old line\n"))
    assert meaning in message
    assert words in message
    assert "old line" not in message


def test_a_missing_program_is_named() -> None:
    """Without the package that brings nats-server, the sentence says how to get it."""
    assert find_nats_server().is_file()
    with pytest.raises(ServerFailed, match="pip install no-such-server"):
        find_nats_server(package="no-such-server")


@pytest.mark.parametrize("damage", ["meta", "gone", "everything"])
async def test_a_damaged_log_is_not_replaced_by_an_empty_one(tmp_path: Path, damage: str) -> None:
    """When the server can't find the log again, nothing new is made in its place."""
    home = await used_folder(tmp_path)
    known = known_log(home)
    if damage == "meta":
        (stream_folder(home, LOG_STREAM) / "meta.inf").write_bytes(b"")
    elif damage == "gone":
        shutil.rmtree(stream_folder(home, LOG_STREAM))
    else:
        shutil.rmtree(home / "nats" / "js")
    message = await refusal(home)
    assert f"the log {known} was here and can't be found" in message
    assert "restore the data folder" in message
    assert known_log(home) == known


async def test_an_exchanged_store_is_noticed(tmp_path: Path) -> None:
    """The files of another log in this folder are refused, with both ids."""
    first, second = await used_folder(tmp_path / "a"), await used_folder(tmp_path / "b")
    shutil.rmtree(first / "nats" / "js")
    shutil.copytree(second / "nats" / "js", first / "nats" / "js")
    message = await refusal(first)
    assert f"this is the log {known_log(second)}, not {known_log(first)}" in message


@pytest.mark.parametrize("file", ["log.json", "keys/sandbox.nk"])
async def test_a_damaged_small_file_is_named(tmp_path: Path, file: str) -> None:
    """A data folder whose own small files are damaged says which one."""
    home = await used_folder(tmp_path)
    (home / "nats" / file).write_text("?")
    assert str(home / "nats" / file) in await refusal(home)


def test_a_role_without_a_key_is_named(tmp_path: Path) -> None:
    """Asking for credentials that were never made says where they were looked for."""
    with pytest.raises(CredentialsMissing, match=f"nobody has no key in {keys_folder(tmp_path)}"):
        load_endpoint(tmp_path, role="nobody", url="nats://127.0.0.1:1")


async def test_a_full_log_takes_no_more_and_keeps_all(tmp_path: Path) -> None:
    """At its limit the log refuses a record and loses none; with a higher limit it goes on."""
    body = b'"' + b"x" * 100_000 + b'"'
    stored = 0
    small, large = (embedded_server(tmp_path, store_bytes_max=mebibytes * 2**20) for mebibytes in (2, 4))
    async with small as running, connect(running.endpoint("client")) as client:
        while b'"err_code":10077' not in (await client.request(SUBMITTED, payload=body)).payload:
            stored += 1
    async with large as running, connect(running.endpoint("client")) as client:
        answer = (await client.request(SUBMITTED, payload=body)).payload
    assert 5 < stored < 12
    assert f'"seq":{stored + 1}'.encode() in answer


async def test_a_server_without_jetstream(tmp_path: Path) -> None:
    """The sentence says that JetStream is missing and how it is enabled."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(find_nats_server()), "-a", "127.0.0.1", "-p", str(port), "-l", str(tmp_path / "log")]
    async with await anyio.open_process(command) as process:
        try:
            with pytest.raises(TopologyRefused, match=r"has no JetStream.*enable it"):
                await ensure_topology(Endpoint(url=f"nats://127.0.0.1:{port}", name="admin"))
        finally:
            process.send_signal(signal.SIGTERM)


async def test_a_server_that_is_not_there() -> None:
    """Nobody listening is an outage, not a refusal."""
    with pytest.raises(LogUnavailable):
        await ensure_topology(Endpoint(url="nats://127.0.0.1:1", name="admin"))


async def test_a_foreign_server_gets_the_streams_once(log_server: LogServer) -> None:
    """The first start makes everything, the second finds it and returns the same log."""
    admin = Endpoint(url=log_server.url, name="admin")
    made = await ensure_topology(admin)
    assert await ensure_topology(admin, log_id=made) == made
    async with log_server.admin() as js:
        assert {each.config.name for each in await js.streams_info()} == {LOG_STREAM, BLOB_STREAM}


async def test_replicas_that_cannot_be_had(log_server: LogServer) -> None:
    """Three copies on one server are refused, both when made and when found with one copy."""
    admin = Endpoint(url=log_server.url, name="admin")
    with pytest.raises(TopologyRefused, match="replicas"):
        await ensure_topology(admin, replicas=3)
    await ensure_topology(admin)
    with pytest.raises(TopologyRefused, match="num_replicas is 1 and 3 were asked for"):
        await ensure_topology(admin, replicas=3)


DANGEROUS: list[tuple[str, object]] = [
    ("max_age", 3600.0),
    ("max_msgs", 10),
    ("max_msgs_per_subject", 1),
    ("deny_delete", False),
    ("deny_purge", False),
    ("discard", "old"),
    ("storage", "memory"),
    ("allow_direct", False),
    ("subjects", [LOG_ALL, "more.>"]),
    ("republish", None),
    ("retention", "interest"),
    ("allow_msg_ttl", True),
    ("metadata", {}),
]


@pytest.mark.parametrize(("setting", "value"), DANGEROUS, ids=[name for name, _ in DANGEROUS])
async def test_a_log_that_could_lose_records_is_refused(log_server: LogServer, setting: str, value: object) -> None:
    """A stream with a dangerous setting is refused by that setting's name, and left as it is."""
    safe: dict[str, Any] = {
        "name": LOG_STREAM,
        "subjects": [LOG_ALL],
        "storage": "file",
        "discard": "new",
        "max_bytes": 2**20,
        "deny_delete": True,
        "deny_purge": True,
        "allow_direct": True,
        "republish": api.RePublish(src=LOG_ALL, dest=TAIL_ALL),
        "metadata": {LOG_ID_METADATA: "log-1"},
    }
    admin = Endpoint(url=log_server.url, name="admin")
    async with log_server.admin() as js:
        before = (await js.add_stream(api.StreamConfig(**{**safe, setting: value}))).config
        expected = LOG_ID_METADATA if setting == "metadata" else setting
        with pytest.raises(TopologyRefused, match=f"{LOG_STREAM}.*{expected}"):
            await ensure_topology(admin)
        assert (await js.stream_info(LOG_STREAM)).config == before


async def test_a_worker_that_would_lose_requests_is_refused(log_server: LogServer) -> None:
    """A consumer that does not wait for acknowledgements is refused; one with other filters is brought up to date."""
    admin = Endpoint(url=log_server.url, name="admin")
    await ensure_topology(admin)
    name = worker_consumer("sandbox")
    async with log_server.admin() as js:
        good = (await js.consumer_info(LOG_STREAM, name)).config
        await js.delete_consumer(LOG_STREAM, name)
        await js.add_consumer(LOG_STREAM, api.ConsumerConfig(durable_name=name, ack_policy=api.AckPolicy.NONE))
        with pytest.raises(TopologyRefused, match="worker-sandbox: ack_policy is 'none'"):
            await ensure_topology(admin)
        await js.delete_consumer(LOG_STREAM, name)
        await js.add_consumer(
            LOG_STREAM,
            api.ConsumerConfig(durable_name=name, ack_policy=api.AckPolicy.EXPLICIT, filter_subject="lumina.log.x.>"),
        )
        await ensure_topology(admin)
        repaired = (await js.consumer_info(LOG_STREAM, name)).config
        assert (repaired.filter_subject, repaired.ack_wait) == (good.filter_subject, good.ack_wait)
