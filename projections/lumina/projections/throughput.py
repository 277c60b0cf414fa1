"""Projection `throughput`: how fast each model is, and how often it answers."""

from typing import ClassVar

from lumina.events.base import Event
from lumina.events.generation import GenerationFinished, GenerationOutcome
from lumina.events.record import Recorded
from lumina.projections.fold import Change, Row, Rows


class ModelRow(Row, frozen=True, kw_only=True):
    """The calls to one model, added up.

    Attributes:
        calls: In all.
        answered: That gave an answer of the right form.
        prompt_ms: Until the first token.
        generate_ms: From the first token to the last.
    """

    table: ClassVar[str] = "model"
    key: ClassVar[tuple[str, ...]] = ("model",)

    model: str
    calls: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prompt_ms: int = 0
    generate_ms: int = 0
    loads: int = 0
    load_ms: int = 0

    @property
    def generated_tokens_per_s(self) -> float:
        """Generated tokens per second of generation; 0 when nothing was measured."""
        return 1000 * self.generated_tokens / self.generate_ms if self.generate_ms else 0.0

    @property
    def prompt_tokens_per_s(self) -> float:
        """Prompt tokens per second until the first token; 0 when nothing was measured."""
        return 1000 * self.prompt_tokens / self.prompt_ms if self.prompt_ms else 0.0


class Throughput:
    """The fold."""

    name = "throughput"
    version = 1
    kinds: tuple[type[Row], ...] = (ModelRow,)

    def apply(self, rows: Rows, recorded: Recorded[Event]) -> tuple[Change, ...]:
        """Return what the record changes."""
        event = recorded.event
        if not isinstance(event, GenerationFinished):
            return ()
        row = rows.get(ModelRow, event.model) or ModelRow(model=event.model)
        return (
            row.but(
                calls=row.calls + 1,
                answered=row.answered + (event.outcome is GenerationOutcome.ANSWERED),
                prompt_tokens=row.prompt_tokens + event.usage.prompt_tokens,
                generated_tokens=row.generated_tokens + event.usage.generated_tokens,
                prompt_ms=row.prompt_ms + event.usage.prompt_ms,
                generate_ms=row.generate_ms + event.usage.generate_ms,
                loads=row.loads + (event.load is not None),
                load_ms=row.load_ms + (event.load.load_ms if event.load is not None else 0),
            ),
        )
