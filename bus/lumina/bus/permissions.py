"""Who may say and hear what, derived from the catalogue of events. Pure; `accounts.py` makes the server enforce it.

Permissions on subjects alone are not enough. A NATS server sends its answers with its own authority: an agent that
asks for a stored message, or publishes one, and names `lumina.log.run.r-1.orchestrator.closed-v1` as the subject to
answer to, would have the server write there on its behalf. Therefore every role lives in an account of its own, into
which only the subjects listed here are imported: an answer can't leave the account except through them.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from lumina.bus.subjects import (
    BLOB_CHUNK_PREFIX,
    BLOB_META_PREFIX,
    BLOB_STREAM,
    JS_ACK,
    JS_API,
    LIVE_ALL,
    LIVE_PREFIX,
    LOG_STREAM,
    TAIL_ALL,
    Filter,
    ack_subjects,
    direct_get_subject,
    next_request_subject,
    stream_facts_subject,
)
from lumina.bus.workers import WORKER_ROLES
from lumina.events.catalogue import SPOKEN_BY, WRITERS

AgentRole = Literal["client", "orchestrator", "governor", "specialist", "validator", "sandbox"]

AGENT_ROLES: Final[tuple[AgentRole, ...]] = get_args(AgentRole)
CONSUMER_PREFIX: Final = "consumer-"
"""Names of external, read-only consumers begin so."""


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """What one role may do, as NATS subject filters.

    Attributes:
        write: Log subjects, its own events only.
        ask: Services of the log's account with one answer each.
        read: Services of the log's account with many answers each.
        chat: Its own live subjects.
        hear: What it may subscribe to beside its inbox.
        inbox: Its replies.
    """

    write: tuple[str, ...]
    ask: tuple[str, ...]
    read: tuple[str, ...]
    chat: tuple[str, ...]
    hear: tuple[str, ...]
    inbox: str

    @property
    def publish(self) -> tuple[str, ...]:
        """All that it may publish; everything else is refused."""
        return (*self.write, *self.ask, *self.read, *self.chat)

    @property
    def subscribe(self) -> tuple[str, ...]:
        """All that it may subscribe to; everything else is refused."""
        return (self.inbox, *self.hear)


def permissions_of(role: AgentRole) -> Permissions:
    """Return what an agent's process may do; the log can be read by all of them, and written only in one's own name."""
    works = role in WORKER_ROLES
    return Permissions(
        write=written_by(role),
        ask=(
            f"{BLOB_CHUNK_PREFIX}.>",
            f"{BLOB_META_PREFIX}.>",
            stream_facts_subject(LOG_STREAM),
            stream_facts_subject(BLOB_STREAM),
            *((ack_subjects(role),) if works else ()),
        ),
        read=(
            *_direct_gets(LOG_STREAM),
            *_direct_gets(BLOB_STREAM),
            *((next_request_subject(role),) if works else ()),
        ),
        chat=(live_of(role),),
        hear=(TAIL_ALL, LIVE_ALL),
        inbox=inbox_of(role),
    )


def written_by(role: AgentRole) -> tuple[str, ...]:
    """Return the log subjects, over all streams, of the events that the catalogue lets `role` write or speak."""
    own = (
        Filter(agent=writer, event=event).subject()
        for event, writers in WRITERS.items()
        for writer in writers
        if role in SPOKEN_BY.get(writer, (writer,))
    )
    return tuple(sorted(own))


def live_of(role: str) -> str:
    """Return the live subjects that speak in the name of `role`."""
    return f"{LIVE_PREFIX}.*.{role}.>"


def inbox_of(name: str) -> str:
    """Return the reply subjects of `name`; see `Endpoint.inbox_prefix`."""
    return f"_INBOX_{name}.>"


def consumer_permissions(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the external consumer `name` may publish and subscribe to, in the consumers' own account.

    That account holds mirrors of the log and of the blobs, under the same names, so that standard clients work: they
    create ephemeral consumers, pull or push, on the mirrors. (They have to name the stream: a mirror has no subjects
    by which to find it.) Nothing leads from that account to the log itself: the
    worst that a hostile consumer can do is to have the server delete the mirrors, which are made again at the next
    start.
    """
    publish = [f"{JS_API}.INFO", f"{JS_API}.STREAM.NAMES", f"{JS_API}.STREAM.LIST"]
    for stream in (LOG_STREAM, BLOB_STREAM):
        publish += [
            stream_facts_subject(stream),
            *_direct_gets(stream),
            f"{JS_API}.STREAM.MSG.GET.{stream}",
            *_consumer_calls(stream),
            f"{JS_ACK}.{stream}.>",
            f"$JS.FC.{stream}.>",
        ]
    return tuple(publish), (inbox_of(name), TAIL_ALL, LIVE_ALL)


def _consumer_calls(stream: str) -> tuple[str, ...]:
    base = f"{JS_API}.CONSUMER"
    calls = tuple(f"{base}.{call}.{stream}.>" for call in ("CREATE", "INFO", "DELETE", "MSG.NEXT"))
    return (f"{base}.CREATE.{stream}", *calls)


def _direct_gets(stream: str) -> tuple[str, ...]:
    """Return the payload form (one message or a batch) and the subject form of direct get."""
    return (direct_get_subject(stream), f"{direct_get_subject(stream)}.>")
