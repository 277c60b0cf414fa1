"""Follow one run of Lumina from outside, with nats-py and the standard library; nothing of Lumina is imported.

    lumina credentials consumer reader          # prints the address and the seed file
    pip install 'nats-py[nkeys]'
    python follow.py --url nats://127.0.0.1:4222 --seed .../consumer-reader.nk RUN

Prints one line per event from the start of the run, old ones first, and stops when the run has ended. Every record's
digest and place in its writer's chain are checked. Exit codes: 0 the run completed, 1 it ended otherwise, 2 no
connection, 5 the log is damaged, 124 time is up.
"""

import argparse
import asyncio
import json
import sys
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

STREAM = "LUMINA_LOG"
TOLD = ("status", "outcome", "verdict", "rung", "model", "kind", "reason", "detail")
CLOSED = "run.closed.v1"
CONNECT_S_MAX = 5


class Damaged(Exception):
    """A record is not what was written."""


class NoConnection(Exception):
    """The server can't be reached, or does not know the key."""


class Chains:
    """Checks digests and chains, as docs/events.md describes them."""

    def __init__(self) -> None:
        """Start with no record."""
        self._heads: dict[str, tuple[int, str]] = {}

    def check(self, headers: dict[str, str], body: bytes) -> None:
        """Raise Damaged unless the record is whole and follows the one before it by the same writer."""
        agent = headers["ce-source"].removeprefix("/lumina/")
        position, previous = int(headers["ce-luminaposition"]), headers["ce-luminaprevious"]
        moment = datetime.fromisoformat(headers["ce-time"])
        sealed = {
            "id": headers["ce-id"],
            "type": headers["ce-type"],
            "stream": headers["ce-subject"],
            "agent": agent,
            "time_ms": int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000,
            "causation": headers.get("ce-causationid"),
            "position": position,
            "previous": previous,
            "body": sha256(body).hexdigest(),
            "fields": headers["ce-luminafields"],
        }
        digest = sha256(json.dumps(sealed, separators=(",", ":")).encode()).hexdigest()
        if digest != headers["ce-luminadigest"]:
            raise Damaged(f"{headers['ce-type']} {headers['ce-id']} does not have its digest")
        if (position - 1, previous) != self._heads.get(agent, (0, "0" * 64)):
            raise Damaged(f"{headers['ce-type']} {headers['ce-id']} does not follow the record of {agent} before it")
        self._heads[agent] = (position, digest)


def line(message: Msg, headers: dict[str, str]) -> str:
    """Return one record in one line."""
    body = json.loads(message.data)
    told = " ".join(f"{key}={body[key]}" for key in TOLD if body.get(key))
    agent = headers["ce-source"].removeprefix("/lumina/")
    return (
        f"{message.metadata.sequence.stream:>6} {headers['ce-time'][11:23]} {agent:<12} {headers['ce-type']:<26} {told}"
    )


async def connected(*, url: str, seed: Path) -> Client:
    """Return a connection. Once it stands it survives outages; a first one that fails is not tried for ever."""
    problems: list[Exception] = []

    async def hear(error: Exception) -> None:
        problems.append(error)

    try:
        async with asyncio.timeout(CONNECT_S_MAX):
            return await nats.connect(url, nkeys_seed=str(seed), inbox_prefix=f"_INBOX_{seed.stem}", error_cb=hear)
    except TimeoutError:
        raise NoConnection(str(problems[-1]) if problems else "no answer") from None


async def follow(*, url: str, seed: Path, run: str) -> int:
    """Print the run's events until it ends and return the exit code."""
    client = await connected(url=url, seed=seed)
    chains = Chains()
    try:
        # A consumer of its own, in order and without gaps, on the mirror that external consumers may read.
        records = await client.jetstream().subscribe(f"lumina.log.*.{run}.>", stream=STREAM, ordered_consumer=True)
        async for message in records.messages:
            headers = dict(message.headers or {})
            chains.check(headers, message.data)
            print(line(message, headers), flush=True)
            if headers["ce-type"] == CLOSED:
                return 0 if json.loads(message.data)["status"] == "completed" else 1
    finally:
        await client.close()
    return 2


def main() -> int:
    """Read the command line and follow."""
    parser = argparse.ArgumentParser(description="Follow one run of Lumina from outside.")
    parser.add_argument("--url", required=True, help="the NATS server")
    parser.add_argument("--seed", required=True, type=Path, help="the nkey seed file of a consumer")
    parser.add_argument("--timeout-s", type=float, default=600.0, help="give up after so many seconds")
    parser.add_argument("run", help="the run's whole id")
    given = parser.parse_args()
    try:
        return asyncio.run(asyncio.wait_for(follow(url=given.url, seed=given.seed, run=given.run), given.timeout_s))
    except Damaged as error:
        print(f"follow: the log is damaged: {error}", file=sys.stderr)
        return 5
    except TimeoutError:
        print(f"follow: {given.run} did not end within {given.timeout_s:g} s", file=sys.stderr)
        return 124
    except (NoConnection, OSError, nats.errors.Error) as error:
        print(f"follow: can't read from {given.url}: {error or type(error).__name__}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
