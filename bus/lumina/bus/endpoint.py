"""Where a process finds its NATS server, and who it is there."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One connection's address and identity.

    Attributes:
        url: For instance `nats://127.0.0.1:4222`; several, separated by commas, for a cluster.
        name: Who connects, one subject token; it also names the inbox, so that nobody can read another's replies.
        seed: The nkey seed that proves it (`SU...`); None for a server without authentication. Never printed.
    """

    url: str
    name: str
    seed: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        assert self.name, "a connection needs a name"
        assert not set(self.name) & set(".*> \t\r\n"), f"{self.name!r} is not a subject token"

    @property
    def inbox_prefix(self) -> str:
        """The prefix of all its reply subjects; its permissions allow it to subscribe to `<prefix>.>` only."""
        return f"_INBOX_{self.name}"
