"""What stands in an exported file (docs/bundles.md): its members, its lines, its manifest, and the limits of all. Pure.

A file is a ZIP archive: `records.jsonl`, `blobs/<sha256>`, `schemas/<type>.json`, `manifest.json`, in this order, and
as the archive's comment the SHA-256 of every byte before it. Equal content gives equal bytes.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from lumina.bus.errors import ArchiveBroken, ArchiveTooNew
from lumina.bus.stored import Stored
from lumina.bus.subjects import LOG_PREFIX
from lumina.events.errors import InvalidEvent
from lumina.events.ids import AnyStreamId
from lumina.events.record import Sealed, chain_digest, fields_digest, headers_of, sealed_from
from lumina.events.values import Count, Digest, Milliseconds, Name, Value

FORMAT: Final = 1
SUFFIX: Final = ".lumina"
MANIFEST: Final = "manifest.json"
RECORDS: Final = "records.jsonl"
MEMBER: Final = re.compile(
    r"manifest\.json|records\.jsonl|blobs/[0-9a-f]{64}|schemas/[a-z_]{1,60}\.[a-z_]{1,60}\.v[0-9]{1,6}\.json"
)
"""What a member may be called. Nothing is ever unpacked under the name that a file gives it."""
SEAL: Final = b"lumina.sha256="
SEAL_BYTES: Final = len(SEAL) + 64

MANIFEST_BYTES_MAX: Final = 64 * 2**20
LINE_BYTES_MAX: Final = 8 * 2**20
"""Of one record: a message of NATS has 1 MiB; as JSON in JSON it grows, at worst, sixfold."""
BLOB_BYTES_MAX: Final = 256 * 2**20
DIRECTORY_BYTES_MAX: Final = 32 * 2**20
"""Of the list of members, in which a blob has 116 bytes, or 128 behind the first 4 GiB."""
BLOBS_MAX: Final = 250_000
"""More are not written: their list could not be read again."""

_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,119}")
_DIGEST: Final = re.compile(r'"[0-9a-f]{64}"')
NEVER_HIDDEN: Final = {
    "run.closed.v1": frozenset({"chains", "records", "root"}),
    "run.forked.v1": frozenset({"parent"}),
}
"""Fields by which the records of a run are proved to be all, beside `type`."""


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One record, as one line of `records.jsonl`.

    Attributes:
        seq: Its place in the log that it comes from.
        headers: As they stand there.
        body: The text of the event, byte for byte. A field that is hidden has its digest for a value.
        hidden: Names of the hidden fields.
    """

    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    headers: dict[str, str]
    body: str
    hidden: tuple[str, ...] = ()


class Covers(Value, frozen=True, kw_only=True):
    """Which records of the log stand in the file: all that match; None means any."""

    stream: AnyStreamId | None = None
    agent: Name | None = None
    type: Name | None = None


class Manifest(Value, frozen=True, kw_only=True):
    """What a file says about itself.

    Attributes:
        format: Version of this layout.
        lumina: Version of Lumina that wrote it.
        code: Version of the code that decides there.
        log_id: Of the log that it comes from.
        run: The run that it was made for; None for a whole log.
        runs: All whose every record is there: of a run, itself and those that it is a fork of.
        covers: What else is there, see `Covers`; of a whole log everything is.
        records: How many.
        first_seq: Of the first record, 0 when there is none.
        last_seq: Of the last one.
        hidden: The names of the fields that were asked to be hidden.
        hidden_records: How many records hide something.
        blobs: Digests of those that are there, in order.
        blobs_left_out: How many are named and not there.
        until_ms: Of the last record. When the file was written stands nowhere in it, so that equal content gives
            equal bytes.
    """

    format: Annotated[int, Meta(ge=1)]
    lumina: Annotated[str, Meta(max_length=60)]
    code: Annotated[str, Meta(max_length=120)]
    log_id: Annotated[str, Meta(max_length=120)]
    scope: Literal["run", "log"]
    run: AnyStreamId | None = None
    runs: tuple[AnyStreamId, ...] = ()
    covers: Annotated[tuple[Covers, ...], Meta(max_length=1_000)] = ()
    records: Count = 0
    first_seq: Count = 0
    last_seq: Count = 0
    hidden: Annotated[tuple[Annotated[str, Meta(max_length=120)], ...], Meta(max_length=1_000)] = ()
    hidden_records: Count = 0
    blobs: tuple[Digest, ...] = ()
    blobs_left_out: Count = 0
    until_ms: Milliseconds = 0

    @property
    def whole(self) -> bool:
        """Whether every record of the log is there."""
        return self.scope == "log"


class _OnlyFormat(msgspec.Struct):
    format: int


_line = msgspec.json.Decoder(Line)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def manifest_from(content: bytes) -> Manifest:
    """Return the manifest that stands in a member.

    Raises:
        ArchiveTooNew: A later version wrote it.
        ArchiveBroken: It is none.
    """
    try:
        version = msgspec.json.decode(content, type=_OnlyFormat).format
        if version > FORMAT:
            raise ArchiveTooNew(
                f"it has format {version}, and this version of Lumina reads {FORMAT}; upgrade to read it"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveBroken(f"{MANIFEST}: {error}") from error
    if manifest.whole == (manifest.run is not None) or (manifest.run is not None and manifest.run not in manifest.runs):
        raise ArchiveBroken(f"{MANIFEST}: it does not say of which run this is")
    if manifest.whole and manifest.hidden_records:
        raise ArchiveBroken(f"{MANIFEST}: a whole log that hides fields is none that an export writes")
    return manifest


def line_from(text: bytes, *, after: int) -> Line:
    """Return the record that stands in a line of `records.jsonl`.

    Raises:
        ArchiveBroken: It is none, is longer than a line may be, or does not follow the record `after`.
    """
    if len(text) > LINE_BYTES_MAX:
        raise ArchiveBroken(f"{RECORDS}: a line has more than {LINE_BYTES_MAX:,} bytes", seq=after + 1)
    try:
        line = _line.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveBroken(f"{RECORDS}, the line after record {after}: {error}", seq=after + 1) from error
    if line.seq <= after:
        raise ArchiveBroken(f"{RECORDS}: record {line.seq} comes after record {after}", seq=line.seq)
    return line


def stored_from(line: Line) -> Stored:
    """Return the message that a line without hidden fields is. Raises ArchiveBroken for an incomplete envelope."""
    try:
        return Stored(line.seq, subject_from(line), line.headers, line.body.encode())
    except UnicodeEncodeError as error:
        raise ArchiveBroken(f"its body is no text: {error.reason}", seq=line.seq) from error


def subject_from(line: Line) -> str:
    """Return the subject that the envelope of a line belongs on. Raises ArchiveBroken for an incomplete envelope."""
    headers = line.headers
    try:
        category, name, version = headers["ce-type"].split(".")
        agent = headers["ce-source"].removeprefix("/lumina/")
        return f"{LOG_PREFIX}.{category}.{headers['ce-subject']}.{agent}.{name}-{version}"
    except (KeyError, ValueError) as error:
        raise ArchiveBroken(f"its envelope is incomplete: {error}", seq=line.seq) from error


def hide(line: Line, *, names: Mapping[str, str]) -> Line:
    """Return the line with the values of the fields `names` replaced by their digests, which `names` gives.

    Of its headers those of the envelope are kept: nothing can be restored from such a line.
    """
    parts: list[bytes] = []
    for name, value in _fields.decode(line.body).items():
        shown = msgspec.json.encode(names[name]) if name in names else bytes(value)
        parts.append(b"%s:%s" % (msgspec.json.encode(name), shown))
    body = b"{%s}" % b",".join(parts)
    headers = {name: value for name, value in line.headers.items() if name.startswith("ce-")}
    return Line(seq=line.seq, headers=headers, body=body.decode(), hidden=tuple(sorted(names)))


def fields_of(body: str) -> dict[str, str]:
    """Return the JSON text of each field of a body."""
    return {name: bytes(value).decode() for name, value in _fields.decode(body).items()}


def field_digest(value: str) -> str:
    """Return what stands in the place of a field's JSON text."""
    return sha256(value.encode()).hexdigest()


def check_hidden(line: Line) -> Sealed:
    """Return the envelope of a record that hides fields, after every visible value and digest has been checked.

    Raises:
        ArchiveBroken: Something in it is not what was written.
    """
    try:
        sealed = sealed_from(line.headers, seq=line.seq)
        fault = _fault(line, sealed=sealed)
    except (InvalidEvent, KeyError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise ArchiveBroken(str(error).removeprefix(f"record {line.seq}: "), seq=line.seq) from error
    if fault is not None:
        raise ArchiveBroken(fault, seq=line.seq)
    return sealed


def _fault(line: Line, *, sealed: Sealed) -> str | None:
    """Return what is wrong with a record that hides fields."""
    fields = fields_of(line.body)
    if line.headers != headers_of(sealed, digest=line.headers.get("ce-luminadigest", "")):
        return "its envelope is not written as one is"
    hidden = {name: fields[name] for name in line.hidden}
    digests = {name: value.strip('"') for name, value in hidden.items()}
    if chain_digest(sealed) != line.headers.get("ce-luminadigest"):
        return "its envelope does not have the digest that it carries"
    written = ",".join(f'"{name}":{value}' for name, value in fields.items())
    if line.body != f"{{{written}}}" or not all(map(_FIELD.fullmatch, fields)):
        return "its body is not written as one is"
    if line.hidden != tuple(sorted(hidden)) or not all(map(_DIGEST.fullmatch, hidden.values())):
        return "what stands for a hidden field is no digest"
    if {"type", *NEVER_HIDDEN.get(sealed.type, ())} & set(hidden):
        return "it hides what may not be hidden"
    if fields_digest(line.body.encode(), hidden=digests) != sealed.fields:
        return "its fields do not have the digest that its envelope names"
    if fields["type"] != f'"{sealed.type}"':
        return "its body is of another type than its envelope"
    return None
