"""Category `node`: what a machine offers, and which models it gave up. The stream id is the node's name."""

from enum import Enum
from typing import Annotated

from msgspec import Meta

from lumina.events.base import Event
from lumina.events.values import BlobRef, Bytes, Digest, DurationMs, Instance, Name, Sentence, TokenCount, Value


class Backend(Enum):
    """How a model is reached."""

    LLAMA_CPP = "llama_cpp"
    OPENAI = "openai"
    SCRIPTED = "scripted"


class ModelOffer(Value, frozen=True, kw_only=True):
    """A model that a node can serve.

    Attributes:
        model: Its id.
        backend: How it is reached; where is in the node's configuration, not in the log.
        bytes_estimated: Per resident instance; 0 for a model that another server holds.
        context: Tokens served.
        slots: Calls at once per instance.
        instances_max: How many instances may be resident at once.
        plans: Good enough to be asked for a plan.
        bare: Takes the plain request, as the demo model does.
        pinned: Its first instance is never unloaded to make room or for being idle, and room for it is kept.
        cloud: It runs on machines of others; it is lent only to asks that say why that is permitted.
    """

    model: Name
    backend: Backend
    bytes_estimated: Bytes
    context: TokenCount
    slots: Annotated[int, Meta(ge=1, le=64)] = 1
    instances_max: Annotated[int, Meta(ge=1, le=64)] = 1
    plans: bool = False
    bare: bool = False
    pinned: bool = False
    cloud: bool = False


class NodeAnnounced(Event, frozen=True, kw_only=True, tag="node.announced.v1"):
    """A node started, or its offer changed. Written by the governor's process under the name `node`.

    Model processes may have survived whatever made the node announce itself again, so nothing that was reserved there
    is free until `node.model_unloaded` confirms it.

    Attributes:
        node: Its name.
        bytes_max: Memory that models may take in all.
        models: What it can serve.
        idle_ms: After this long without use an instance is unloaded.
        configuration: Digest of the node's configuration file.
        code: Version and digest of the code that decides there from now on; see `lumina.agents.version`.
    """

    node: Name
    bytes_max: Bytes
    models: Annotated[tuple[ModelOffer, ...], Meta(max_length=200)]
    idle_ms: DurationMs
    configuration: Digest
    code: Annotated[str, Meta(max_length=120)] = ""


class UnloadReason(Enum):
    """Why an instance has to go. RETIRED: it failed, its lease ran out, or the node's configuration changed."""

    IDLE = "idle"
    ROOM = "room"
    ASKED = "asked"
    RETIRED = "retired"


class UnloadRequested(Event, frozen=True, kw_only=True, tag="node.unload_requested.v1"):
    """The governor wants the memory of an idle instance back. Its bytes stay reserved until it is unloaded."""

    node: Name
    instance: Instance
    reason: UnloadReason
    detail: Sentence = ""


class ModelUnloaded(Event, frozen=True, kw_only=True, tag="node.model_unloaded.v1"):
    """An instance's process has ended."""

    node: Name
    instance: Instance
    was_loaded: bool
    effect: Digest
    raw: BlobRef


NodeEvent = NodeAnnounced | UnloadRequested | ModelUnloaded
