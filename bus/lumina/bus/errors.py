"""What can go wrong between a process and its log.

BusError
├── LogUnavailable   nobody answers: whether the last append landed is unknown; do it again, it is idempotent
├── LogFull          nothing was stored: make room (the message says where), then go on
├── LogDamaged       a record is missing or changed: do not write; restore from an export or a mirror
│   └── ArchiveBroken  an exported file is not what was written: get it again from where it comes from
├── ArchiveTooNew    an exported file was written by a later version: upgrade to read it
├── FieldsHidden     a record of an exported file hides fields: it can be checked, and not be read as an event
├── PayloadTooLarge  the record is over the server's limit: put its large part into a blob
├── BlobMissing      a blob that an event names is not there, or is not what its digest says
├── BlobsFull        no room for a blob: nothing was stored
├── Forbidden        these credentials may not say or read that: a bug in the agent, or the wrong endpoint
├── CheckpointFailed the checkpoint file can't be read or written; the record is in the log: make room, go on
├── TopologyRefused  the server's streams would allow loss, or there is no JetStream: change the setting it names
├── CredentialsMissing  no usable key for a role in this data folder: the message says how to get one
├── RepairFailed     a damaged log could not be restored: nothing was changed; the message says why
└── ServerFailed     the embedded NATS server could not be started: the message says why and what to do
"""

from lumina.events.ids import StreamId


class BusError(Exception):
    """Base of all errors of the bus."""


class LogUnavailable(BusError):
    """The log can't be reached. Nothing is known about an append under way; append it again."""


class LogFull(BusError):
    """The log's store is full. Nothing was stored."""


class PayloadTooLarge(BusError):
    """A record is larger than the server takes."""


class BlobMissing(BusError):
    """A blob is not there, or its content does not have its digest."""


class BlobsFull(BusError):
    """The blob store is full. Nothing was stored."""


class Forbidden(BusError):
    """The server refused a subject to these credentials, or the credentials themselves. Trying again is useless."""


class CheckpointFailed(BusError):
    """The checkpoint file can't be read or written. The log is not affected; an append under way has landed."""


class TopologyRefused(BusError):
    """The server can't keep the log as it must be kept. Nothing was changed; the message names the setting."""


class CredentialsMissing(BusError):
    """A role has no usable key in this data folder."""


class RepairFailed(BusError):
    """A damaged log could not be restored. Nothing was changed."""


class ServerFailed(BusError):
    """The embedded server did not start, or runs already."""


class LogDamaged(BusError):
    """The log is not what was written.

    Attributes:
        seq: Where; the first sequence that can't be trusted.
        stream: The stream concerned, if known.
    """

    def __init__(self, message: str, *, seq: int, stream: StreamId | None = None) -> None:
        super().__init__(f"record {seq}: {message}")
        self.seq = seq
        self.stream = stream


class ArchiveBroken(LogDamaged):
    """An exported file is not what was written. `seq` is 0 when no record is concerned.

    Attributes:
        reason: What is wrong, without the place.
    """

    def __init__(self, message: str, *, seq: int = 0, stream: StreamId | None = None) -> None:
        super().__init__(message, seq=seq, stream=stream)
        self.reason = message
        if not seq:
            self.args = (message,)


class ArchiveTooNew(BusError):
    """An exported file has a format that this version does not know."""


class FieldsHidden(BusError):
    """A record was exported without some of its fields; `lumina verify` still proves that it is the one written."""
