"""The streams and consumers that Lumina needs: made once, verified at every start, never loosened.

A setting that could lose a record (an age limit, a missing deny flag) is refused, not repaired: whoever set it should
know that it was there. Only admin credentials can do any of this; see `permissions.py`.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lumina.bus.accounts import MIRROR_API, MIRROR_DELIVER
from lumina.bus.endpoint import Endpoint
from lumina.bus.errors import LogUnavailable, TopologyRefused
from lumina.bus.nats_transport import connect
from lumina.bus.subjects import (
    BLOB_BUCKET,
    BLOB_CHUNK_PREFIX,
    BLOB_META_PREFIX,
    BLOB_STREAM,
    JS_API,
    LOG_ALL,
    LOG_ID_METADATA,
    LOG_STREAM,
    TAIL_ALL,
    stream_facts_subject,
    worker_consumer,
)
from lumina.bus.transport import Transport
from lumina.bus.workers import ACK_WAIT_S, WORKER_ROLES, WorkerRole

STORE_BYTES_MAX: Final = 8 * 2**30
"""Default size of the log and of the blobs, each half of it."""
DUPLICATE_WINDOW_S: Final = 120
SETUP_REQUEST_S_MAX: Final = 20.0

_NS: Final = 1_000_000_000
_NOT_FOUND: Final = frozenset({10059, 10014})
_JETSTREAM_MISSING: Final = frozenset({10076, 10039})
_NO_ROOM: Final = frozenset({10047, 10023})

_STREAM_LAWS: Final[dict[str, Any]] = {
    "retention": "limits",
    "storage": "file",
    "discard": "new",
    "max_age": 0,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "max_consumers": -1,
    "allow_rollup_hdrs": False,
    "allow_direct": True,
    "allow_msg_ttl": False,
    "allow_msg_schedules": False,
    "sealed": False,
    "no_ack": False,
    "subject_transform": None,
    "mirror": None,
    "sources": None,
}
"""What must hold for every stream; a key that the server leaves out has its zero value."""
_LOG_LAWS: Final[dict[str, Any]] = {
    **_STREAM_LAWS,
    "subjects": [LOG_ALL],
    "deny_delete": True,
    "deny_purge": True,
    "republish": {"src": LOG_ALL, "dest": TAIL_ALL},
}
_BLOB_LAWS: Final[dict[str, Any]] = {**_STREAM_LAWS, "subjects": [f"{BLOB_CHUNK_PREFIX}.>", f"{BLOB_META_PREFIX}.>"]}
_WORKER_LAWS: Final[dict[str, Any]] = {"ack_policy": "explicit", "deliver_policy": "all", "replay_policy": "instant"}


class ApiError(Exception):
    """JetStream said no; for this module only.

    Attributes:
        code: JetStream's own error code, for instance 10059 for a stream that is not there.
    """

    def __init__(self, subject: str, *, code: int, description: str) -> None:
        super().__init__(f"{subject}: {description} ({code})")
        self.code = code


@dataclass(frozen=True, kw_only=True)
class _Room:
    """How large one stream is made, and how large it must be if it is there already (None: as it is)."""

    made: int
    least: int | None


async def ensure_topology(
    admin: Endpoint,
    *,
    log_id: str | None = None,
    replicas: int = 1,
    store_bytes_max: int | None = None,
    new_store_bytes_max: int = STORE_BYTES_MAX,
    new_log_id: str | None = None,
) -> str:
    """Make or verify the log, the blobs and the workers' consumers, and return the log's id.

    Args:
        admin: The server and its admin credentials; the only ones that may do this.
        log_id: The log that is expected to be there; None when a new one is welcome.
        replicas: How many servers of a cluster keep each record: 1, 3 or 5.
        store_bytes_max: Room for the log and the blobs together; raised, never lowered, for streams that are there.
        new_store_bytes_max: The same for streams that are made now, when `store_bytes_max` is None.
        new_log_id: What a log that is made now is called; by default that is drawn.

    Raises:
        TopologyRefused: A setting could lose records, the expected log is not there, or JetStream is missing.
        LogUnavailable: The server can't be reached or does not answer in time.
    """
    room = _Room(
        made=(store_bytes_max or new_store_bytes_max) // 2,
        least=None if store_bytes_max is None else store_bytes_max // 2,
    )
    async with connect(admin) as transport:
        try:
            await _check_jetstream(transport, url=admin.url)
            drawn = new_log_id or secrets.token_hex(16)
            found = await _ensure_log(transport, log_id=log_id, drawn=drawn, replicas=replicas, room=room)
            await _ensure_blobs(transport, replicas=replicas, room=room)
            for role in WORKER_ROLES.values():
                await _ensure_worker(transport, role)
        except ApiError as error:
            raise _refusal(error) from error
    return found


async def ensure_mirrors(curator: Endpoint) -> None:
    """Make the mirrors of the log and of the blobs in the external consumers' account, unless they are there.

    They cost as much disk as what they mirror, and nothing while no external consumer is known.

    Raises:
        TopologyRefused: The server refuses them.
        LogUnavailable: The server can't be reached or does not answer in time.
    """
    async with connect(curator) as transport:
        for name in (LOG_STREAM, BLOB_STREAM):
            external = {"api": MIRROR_API, "deliver": f"{MIRROR_DELIVER}.{name}"}
            config = {
                "name": name,
                "storage": "file",
                "retention": "limits",
                "discard": "old",
                "num_replicas": 1,
                "allow_direct": True,
                "mirror_direct": False,
                "compression": "s2",
                "mirror": {"name": name, "external": external},
            }
            try:
                if await _stream_facts(transport, name) is None:
                    await _call(transport, f"STREAM.CREATE.{name}", config)
            except ApiError as error:
                raise _refusal(error) from error


async def _check_jetstream(transport: Transport, *, url: str) -> None:
    missing = (
        f"the NATS server at {url} has no JetStream for this account: "
        "enable it in the server's configuration (`jetstream { store_dir: ... }`), then start again"
    )
    try:
        await _call(transport, "INFO", None)
    except LogUnavailable as error:
        if "nobody listens" in str(error):
            raise TopologyRefused(missing) from error
        raise
    except ApiError as error:
        if error.code in _JETSTREAM_MISSING:
            raise TopologyRefused(missing) from error
        raise


async def _ensure_log(transport: Transport, *, log_id: str | None, drawn: str, replicas: int, room: _Room) -> str:
    facts = await _stream_facts(transport, LOG_STREAM)
    if facts is None:
        if log_id is not None:
            raise TopologyRefused(
                f"the log {log_id} was here and can't be found: its files are damaged or gone; "
                "`lumina repair` says what can be restored; or restore the data folder from a backup"
            )
        config = {
            "name": LOG_STREAM,
            "description": "Everything that Lumina decided: append-only",
            **_made(_LOG_LAWS),
            "max_bytes": room.made,
            "num_replicas": replicas,
            "compression": "s2",
            "duplicate_window": DUPLICATE_WINDOW_S * _NS,
            "metadata": {LOG_ID_METADATA: drawn},
        }
        facts = await _call(transport, f"STREAM.CREATE.{LOG_STREAM}", config)
    config = facts["config"]
    _check(LOG_STREAM, config, laws=_LOG_LAWS, replicas=replicas)
    found = config.get("metadata", {}).get(LOG_ID_METADATA)
    if not isinstance(found, str):
        raise TopologyRefused(f"stream {LOG_STREAM} has no {LOG_ID_METADATA!r} in its metadata: Lumina did not make it")
    if log_id is not None and found != log_id:
        raise TopologyRefused(f"this is the log {found}, not {log_id}: the server or the data folder was exchanged")
    await _grow(transport, config, room=room)
    return found


async def _ensure_blobs(transport: Transport, *, replicas: int, room: _Room) -> None:
    """Make or verify a standard object store, but without roll-ups: nobody can replace or remove what is there."""
    facts = await _stream_facts(transport, BLOB_STREAM)
    if facts is None:
        config = {
            "name": BLOB_STREAM,
            "description": f"Object store {BLOB_BUCKET}: contents by SHA-256",
            **_made(_BLOB_LAWS),
            "max_bytes": room.made,
            "num_replicas": replicas,
            "compression": "s2",
        }
        facts = await _call(transport, f"STREAM.CREATE.{BLOB_STREAM}", config)
    _check(BLOB_STREAM, facts["config"], laws=_BLOB_LAWS, replicas=replicas)
    await _grow(transport, facts["config"], room=room)


async def _ensure_worker(transport: Transport, role: WorkerRole) -> None:
    name = worker_consumer(role.name)
    config = {
        "name": name,
        "durable_name": name,
        **_WORKER_LAWS,
        "ack_wait": int(ACK_WAIT_S * _NS),
        "max_deliver": -1,
        "filter_subjects": [each.subject() for each in role.filters],
    }
    if len(role.filters) == 1:
        config["filter_subject"] = config.pop("filter_subjects")[0]
    try:
        facts = await _call(transport, f"CONSUMER.INFO.{LOG_STREAM}.{name}", None)
    except ApiError as error:
        if error.code not in _NOT_FOUND:
            raise
        facts = {"config": {}}
    wrong = {key: facts["config"].get(key) for key, value in config.items() if facts["config"].get(key) != value}
    if not wrong:
        return
    for key in _WORKER_LAWS:
        if facts["config"] and key in wrong:
            raise TopologyRefused(f"consumer {name}: {key} is {wrong[key]!r} and must be {_WORKER_LAWS[key]!r}")
    await _call(transport, f"CONSUMER.CREATE.{LOG_STREAM}.{name}", {"stream_name": LOG_STREAM, "config": config})


async def _grow(transport: Transport, config: Mapping[str, Any], *, room: _Room) -> None:
    if room.least is not None and config["max_bytes"] < room.least:
        name = config["name"]
        await _call(transport, f"STREAM.UPDATE.{name}", {**config, "max_bytes": room.least})


def _made(laws: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in laws.items() if value is not None}


def _check(stream: str, config: Mapping[str, Any], *, laws: Mapping[str, Any], replicas: int) -> None:
    for key, wanted in laws.items():
        zero: Any = None if wanted is None else type(wanted)()
        found = config.get(key, zero)
        if found != wanted:
            raise TopologyRefused(
                f"stream {stream}: {key} is {found!r} and must be {wanted!r}, or records can be lost; "
                "nothing was changed"
            )
    kept = config.get("num_replicas", 1)
    if kept < replicas:
        raise TopologyRefused(f"stream {stream}: num_replicas is {kept} and {replicas} were asked for; raise it first")


async def _stream_facts(transport: Transport, stream: str) -> dict[str, Any] | None:
    try:
        return await _call(transport, stream_facts_subject(stream).removeprefix(f"{JS_API}."), None)
    except ApiError as error:
        if error.code in _NOT_FOUND:
            return None
        raise


async def _call(transport: Transport, call: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    payload = b"" if body is None else msgspec.json.encode(body)
    answer = await transport.request(f"{JS_API}.{call}", payload=payload, timeout_s=SETUP_REQUEST_S_MAX)
    facts: dict[str, Any] = msgspec.json.decode(answer.payload)
    error = facts.get("error")
    if error is not None:
        raise ApiError(call, code=error.get("err_code", 0), description=error.get("description", ""))
    return facts


def _refusal(error: ApiError) -> TopologyRefused:
    if error.code in _NO_ROOM:
        return TopologyRefused(f"{error}: ask for less room (store_bytes_max), or give JetStream more (max_file_store)")
    return TopologyRefused(str(error))
