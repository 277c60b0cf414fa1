"""The embedded server: one per data folder, found by others, and what was acknowledged survives its death."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import msgspec
import psutil
import pytest

from lumina.bus.address import Address, find_running, publish_address, read_address
from lumina.bus.credentials import ADMIN
from lumina.bus.errors import LogUnavailable, ServerFailed
from lumina.bus.nats_transport import connect
from lumina.bus.permissions import AGENT_ROLES
from lumina.bus.server import EmbeddedServer, embedded_server
from lumina.bus.subjects import BLOB_STREAM, JS_API, LOG_STREAM, stream_facts_subject, worker_consumer
from lumina.bus.transport import Transport
from lumina.bus.workers import ACK_WAIT_S, WORKER_ROLES

pytestmark = pytest.mark.anyio

SUBMITTED = "lumina.log.run.r-{}.client.submitted-v1"
RECORDS = 50
STARTER = """
import sys, anyio
from pathlib import Path
from lumina.bus.server import embedded_server

async def main():
    async with embedded_server(Path(sys.argv[1]), die_with_parent=sys.argv[2] == "die"):
        await anyio.sleep_forever()

anyio.run(main)
"""


async def facts_of(transport: Transport, subject: str) -> dict[str, dict[str, object]]:
    """Ask JetStream for a stream's or consumer's facts."""
    facts: dict[str, dict[str, object]] = json.loads((await transport.request(subject)).payload)
    assert "error" not in facts, facts
    return facts


async def write(transport: Transport, count: int) -> None:
    """Append raw messages as the client, each acknowledged."""
    for number in range(count):
        answer = json.loads((await transport.request(SUBMITTED.format(number), payload=b"{}")).payload)
        assert "error" not in answer, answer


@asynccontextmanager
async def started(home: Path, *, how: str) -> AsyncIterator[anyio.abc.Process]:
    """Start a server from another process and yield that process; leave neither behind."""
    line = [sys.executable, "-c", STARTER, str(home), how]
    async with await anyio.open_process(line, stdout=subprocess.DEVNULL) as starter:
        try:
            with anyio.fail_after(20):
                while True:
                    if find_running(home) is not None:
                        break
                    await anyio.sleep(0.05)
            yield starter
        finally:
            if starter.returncode is None:
                starter.kill()
            left = find_running(home)
            if left is not None:
                os.kill(left.pid, signal.SIGKILL)


async def gone(pid: int) -> bool:
    """Whether the process ends within five seconds."""
    with anyio.move_on_after(5):
        while True:
            if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
            await anyio.sleep(0.05)
    return False


async def test_it_starts_with_streams_and_consumers(tmp_path: Path) -> None:
    """The log is append-only and republished, blobs have a bucket, and each worker role has its consumer."""
    async with embedded_server(tmp_path) as running, connect(running.endpoint(ADMIN)) as admin:
        log = (await facts_of(admin, stream_facts_subject(LOG_STREAM)))["config"]
        assert log["deny_delete"] is log["deny_purge"] is log["allow_direct"] is True
        assert (log["discard"], log["max_age"], log["compression"]) == ("new", 0, "s2")
        assert log["duplicate_window"] == 120 * 10**9
        blobs = (await facts_of(admin, stream_facts_subject(BLOB_STREAM)))["config"]
        assert blobs["allow_rollup_hdrs"] is False
        for role in WORKER_ROLES.values():
            subject = f"{JS_API}.CONSUMER.INFO.{LOG_STREAM}.{worker_consumer(role.name)}"
            consumer = (await facts_of(admin, subject))["config"]
            assert consumer["ack_wait"] == ACK_WAIT_S * 10**9
            wanted = [each.subject() for each in role.filters]
            assert consumer.get("filter_subjects", [consumer.get("filter_subject")]) == wanted


async def test_every_role_connects(tmp_path: Path) -> None:
    """Each agent role has credentials that the server knows, and learns the same log's id."""
    async with embedded_server(tmp_path) as running:
        for role in (*AGENT_ROLES, ADMIN, "system"):
            async with connect(running.endpoint(role)) as transport:
                assert transport.max_payload_bytes == 8 * 2**20


async def test_nobody_else_can_read_its_files(tmp_path: Path) -> None:
    """Folders are 0700 and all files with keys or addresses are 0600; no seed is in the configuration."""
    async with embedded_server(tmp_path):
        folder = tmp_path / "nats"
        for path in (folder, folder / "keys"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        private = [*(folder / "keys").iterdir(), *(folder / name for name in ("server.json", "address.json", "lock"))]
        assert len(private) > len(AGENT_ROLES)
        for path in private:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        configuration = (folder / "server.json").read_text()
        for path in (folder / "keys").iterdir():
            assert path.read_text().strip() not in configuration


async def test_it_is_found_while_it_runs(tmp_path: Path) -> None:
    """Others find its address, process and log while it runs, and nothing before and after."""
    assert find_running(tmp_path) is None
    async with embedded_server(tmp_path) as running:
        found = find_running(tmp_path)
        assert found is not None
        assert (found.url, found.pid, found.log_id) == (running.url, running.pid, running.log_id)
        assert found.endpoint("client") == running.endpoint("client")
    assert find_running(tmp_path) is None


async def test_a_stale_address_is_no_server(tmp_path: Path) -> None:
    """An address whose process number now belongs to another process is not taken for a server."""
    async with embedded_server(tmp_path):
        address = read_address(tmp_path)
        assert address is not None
    publish_address(tmp_path, Address(url=address.url, port=1, pid=os.getpid(), started_s=1.0, log_id=address.log_id))
    assert find_running(tmp_path) is None
    (tmp_path / "nats" / "address.json").write_text("{")
    assert find_running(tmp_path) is None


async def test_waiting_ends_with_the_server(tmp_path: Path) -> None:
    """Its starter learns the exit status, and whoever found it learns that it is gone."""
    async with embedded_server(tmp_path) as running:
        found = find_running(tmp_path)
        assert found is not None
        os.kill(running.pid, signal.SIGKILL)
        with anyio.fail_after(5):
            assert await running.wait() == -signal.SIGKILL
            assert await found.wait() is None


async def test_a_second_start_on_the_folder_is_refused(tmp_path: Path) -> None:
    """It names the process and the folder, and the first server goes on."""
    async with embedded_server(tmp_path) as running:
        with pytest.raises(ServerFailed, match=f"process {os.getpid()} .*{tmp_path}.*lumina down"):
            async with embedded_server(tmp_path):
                pass
        async with connect(running.endpoint("client")) as client:
            await write(client, 1)


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """After kill -9 the same folder starts on the same port, with the same log and all its records."""
    async with embedded_server(tmp_path) as running:
        async with connect(running.endpoint("client")) as client:
            await write(client, RECORDS)
        os.kill(running.pid, signal.SIGKILL)
        await running.wait()
    async with embedded_server(tmp_path) as again, connect(again.endpoint("client")) as client:
        assert (again.url, again.log_id) == (running.url, running.log_id)
        assert (await facts_of(client, stream_facts_subject(LOG_STREAM)))["state"]["messages"] == RECORDS


async def test_connections_come_back_after_a_restart(tmp_path: Path) -> None:
    """An agent that stays connected finds the server again without being told."""
    async with embedded_server(tmp_path) as first:
        endpoint = first.endpoint("client")
    async with embedded_server(tmp_path):
        connecting = connect(endpoint)
        client = await connecting.__aenter__()
    async with embedded_server(tmp_path):
        assert await client.wait_connected(timeout_s=10)
        await write(client, 1)
        await connecting.__aexit__(None, None, None)


async def test_another_port_is_taken_when_the_last_one_is_in_use(tmp_path: Path) -> None:
    """The port of the last time is a preference, not a condition."""
    async with embedded_server(tmp_path / "a") as first:
        async with embedded_server(tmp_path / "b") as second:
            address = read_address(tmp_path / "b")
            assert address is not None
        taken = int(first.url.rpartition(":")[2])
        publish_address(tmp_path / "b", msgspec.structs.replace(address, port=taken))
        async with embedded_server(tmp_path / "b") as again:
            assert again.url != first.url
            assert again.log_id == second.log_id


async def test_it_does_not_outlive_a_killed_starter_if_so_asked(tmp_path: Path) -> None:
    """With `die_with_parent`, kill -9 of the starter stops the server and frees the folder."""
    async with started(tmp_path, how="die") as starter:
        server = find_running(tmp_path)
        assert server is not None
        starter.kill()
        await starter.wait()
        assert await gone(server.pid)
        async with embedded_server(tmp_path) as running:
            assert running.log_id == server.log_id


async def test_an_orphaned_server_is_replaced(tmp_path: Path) -> None:
    """Without `die_with_parent` it outlives its starter; the next start stops it and keeps its log."""
    async with started(tmp_path, how="live") as starter:
        orphan = find_running(tmp_path)
        assert orphan is not None
        starter.kill()
        await starter.wait()
        async with connect(orphan.endpoint("client")) as client:
            await write(client, RECORDS)
        async with embedded_server(tmp_path) as running:
            assert await gone(orphan.pid)
            assert running.log_id == orphan.log_id
            async with connect(running.endpoint("client")) as client:
                assert (await facts_of(client, stream_facts_subject(LOG_STREAM)))["state"]["messages"] == RECORDS


async def test_it_is_killed_when_it_does_not_stop(tmp_path: Path) -> None:
    """A server that does not obey SIGTERM is killed after the limit; the block ends in any case."""
    with anyio.fail_after(20):
        async with embedded_server(tmp_path, stop_s_max=0.3) as running:
            os.kill(running.pid, signal.SIGSTOP)
    assert running.process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("sync", "expected"), [("always", "always"), ("default", None)])
async def test_every_write_reaches_the_disk_by_default(tmp_path: Path, sync: str, expected: str | None) -> None:
    """`always` is configured unless `default` is asked for."""
    async with embedded_server(tmp_path, sync="always" if sync == "always" else "default") as running:
        assert _configuration(running)["jetstream"].get("sync_interval") == expected


async def test_it_listens_on_loopback_only(tmp_path: Path) -> None:
    """No other machine can reach it, and it has no monitoring port."""
    async with embedded_server(tmp_path) as running:
        listening = {each.laddr for each in psutil.Process(running.pid).net_connections() if each.status == "LISTEN"}
        assert {address.ip for address in listening} == {"127.0.0.1"}
        assert len(listening) == 1


def _configuration(running: EmbeddedServer) -> dict[str, dict[str, object]]:
    configuration: dict[str, dict[str, object]] = json.loads((running.home / "nats" / "server.json").read_bytes())
    return configuration


async def test_nobody_answers_after_the_end(tmp_path: Path) -> None:
    """Leaving the block has stopped the server."""
    async with embedded_server(tmp_path) as running:
        pass
    with pytest.raises(LogUnavailable):
        async with connect(running.endpoint("client"), timeout_s=0.5):
            pass
