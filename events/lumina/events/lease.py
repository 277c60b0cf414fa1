"""Category `lease`: the governor admits work to a model instance, or refuses it."""

from enum import Enum

from lumina.events.base import Event
from lumina.events.generation import Ask
from lumina.events.ids import AnyEventId
from lumina.events.values import Bytes, Instance, Milliseconds, Name, Sentence, TokenCount


class Refusal(Enum):
    """Why a request is not admitted. QUEUE_FULL is the only one that another attempt, later, may escape.

    NOT_PERMITTED: the model runs on machines of others, and the ask does not say why that is permitted.
    """

    UNKNOWN_MODEL = "unknown_model"
    NEVER_FITS = "never_fits"
    NO_NODE = "no_node"
    QUEUE_FULL = "queue_full"
    NOT_PERMITTED = "not_permitted"


class LeaseGranted(Event, frozen=True, kw_only=True, tag="lease.granted.v1"):
    """A request may use a model instance now.

    Attributes:
        request: The `generation.requested`.
        ask: Its question, repeated so that this one record is all that a specialist needs.
        node: Where.
        instance: `MODEL#K`; each instance is one worker process.
        load: True when the instance is not known to be resident; its memory is already reserved.
        bytes_reserved: By this instance, estimated before loading.
        context: Tokens that the instance serves.
        expires_at: After this the lease is void; `lease.expired` says so, and nothing may be loaded for it.
        reason: Why now and why this instance, for people.
    """

    request: AnyEventId
    ask: Ask
    node: Name
    instance: Instance
    load: bool
    bytes_reserved: Bytes
    context: TokenCount
    expires_at: Milliseconds
    reason: Sentence = ""


class LeaseRefused(Event, frozen=True, kw_only=True, tag="lease.refused.v1"):
    """A request can't be admitted, now or later, and why. `bytes_needed` and `bytes_max` say what would fit."""

    request: AnyEventId
    refusal: Refusal
    detail: Sentence
    bytes_needed: Bytes = 0
    bytes_max: Bytes = 0


class LeaseReleased(Event, frozen=True, kw_only=True, tag="lease.released.v1"):
    """A lease was used and given back, or its run ended."""

    lease: AnyEventId
    reason: Sentence = ""


class LeaseExpired(Event, frozen=True, kw_only=True, tag="lease.expired.v1"):
    """A lease ran out without an outcome."""

    lease: AnyEventId
    request: AnyEventId
    reason: Sentence = ""


LeaseEvent = LeaseGranted | LeaseRefused | LeaseReleased | LeaseExpired
