"""The accounts, users, exports and imports of a NATS server for Lumina, from `permissions.py`. Pure.

    LUMINA             the log, the blobs and the workers' consumers; its only user is `admin`
    LUMINA_<ROLE>      one per agent role: its users, and what it may reach of the log and hear of the others
    LUMINA_CONSUMERS   external consumers, and mirrors for them; no way leads from here into the log
    SYS                the server's own

The same block serves a NATS server or cluster that somebody else runs: `lumina` needs nothing else from it.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from lumina.bus.permissions import (
    AGENT_ROLES,
    CONSUMER_PREFIX,
    Permissions,
    consumer_permissions,
    live_of,
    permissions_of,
)
from lumina.bus.subjects import BLOB_STREAM, JS_API, LOG_STREAM, TAIL_ALL

LOG_ACCOUNT: Final = "LUMINA"
CONSUMERS_ACCOUNT: Final = "LUMINA_CONSUMERS"
SYSTEM_ACCOUNT: Final = "SYS"

ANSWERS_S_MAX: Final = 60
"""How long after a question with many answers they still arrive; a pull for work must be shorter. The server keeps a
little under 1 kB per such question for one to two times as long."""
AGENTS_API: Final = "lumina.api"
"""What the agents' accounts call the API of the log's account."""
MIRROR_API: Final = "lumina.mirror.api"
"""What the mirrors call the API of the log's account."""
MIRROR_DELIVER: Final = "lumina.mirror.deliver"
"""Where the log's account delivers to the mirrors."""


def account_of(role: str) -> str:
    """Return the account in which an agent role lives."""
    return f"{LOG_ACCOUNT}_{role.upper()}"


def accounts(keys: Mapping[str, str]) -> dict[str, Any]:
    """Return the `accounts` block of a NATS configuration, given every role's public key."""
    agents: dict[str, Permissions] = {role: permissions_of(role) for role in AGENT_ROLES}
    block: dict[str, Any] = {
        SYSTEM_ACCOUNT: {"users": [{"nkey": keys["system"]}]},
        LOG_ACCOUNT: {"jetstream": "enabled", "users": [{"nkey": keys["admin"]}], "exports": _log_exports(agents)},
        CONSUMERS_ACCOUNT: _consumers(keys),
    }
    for role, permissions in agents.items():
        block[account_of(role)] = {
            "users": [
                _user(keys[role], publish=tuple(map(_local, permissions.publish)), subscribe=permissions.subscribe)
            ],
            "exports": [{"stream": live_of(role)}],
            "imports": [*map(_import, _services(permissions)), *_heard(but=role)],
            "mappings": {each: _local(each) for each in _services(permissions) if _local(each) != each},
        }
    return block


def _user(key: str, *, publish: tuple[str, ...], subscribe: tuple[str, ...]) -> dict[str, Any]:
    return {
        "nkey": key,
        "permissions": {
            "publish": {"allow": list(publish)},
            "subscribe": {"allow": list(subscribe)},
            "allow_responses": False,
        },
    }


def _import(subject: str) -> dict[str, Any]:
    return {"service": {"account": LOG_ACCOUNT, "subject": subject}, "to": _local(subject)}


def _local(subject: str) -> str:
    """Return what an imported service is called inside an agent's account.

    The server answers `$JS.API.>` itself in every account ("JetStream not enabled for account"), so that a request for
    the log's state would be answered twice. What clients ask is mapped to a name that only the log's account answers.
    """
    return subject.replace(f"{JS_API}.STREAM.INFO.", f"{AGENTS_API}.STREAM.INFO.")


def _services(permissions: Permissions) -> tuple[str, ...]:
    return (*permissions.write, *permissions.ask, *permissions.read)


def _log_exports(agents: Mapping[str, Permissions]) -> list[dict[str, Any]]:
    """Return each subject with the accounts that may import it. Every answer of a `read` is passed on, not one."""
    once: dict[str, list[str]] = defaultdict(list)
    many: dict[str, list[str]] = defaultdict(list)
    for role, permissions in agents.items():
        for subject in (*permissions.write, *permissions.ask):
            once[subject].append(account_of(role))
        for subject in permissions.read:
            many[subject].append(account_of(role))
    return [
        *({"service": subject, "accounts": who} for subject, who in sorted(once.items())),
        *(
            {
                "service": subject,
                "accounts": who,
                "response_type": "stream",
                "response_threshold": f"{ANSWERS_S_MAX}s",
            }
            for subject, who in sorted(many.items())
        ),
        {"stream": TAIL_ALL},
        *({"service": subject, "accounts": [CONSUMERS_ACCOUNT]} for subject in _mirror_calls(JS_API)),
        *({"service": f"$JS.FC.{stream}.>", "accounts": [CONSUMERS_ACCOUNT]} for stream in (LOG_STREAM, BLOB_STREAM)),
        {"stream": f"{MIRROR_DELIVER}.>", "accounts": [CONSUMERS_ACCOUNT]},
    ]


def _mirror_calls(api: str) -> list[str]:
    return [f"{api}.CONSUMER.CREATE.{stream}{end}" for stream in (LOG_STREAM, BLOB_STREAM) for end in ("", ".>")]


def _heard(*, but: str = "") -> list[dict[str, Any]]:
    """Return the imports of the log's tail and of what the agents chat, except the account's own chatter."""
    return [
        {"stream": {"account": LOG_ACCOUNT, "subject": TAIL_ALL}},
        *({"stream": {"account": account_of(role), "subject": live_of(role)}} for role in AGENT_ROLES if role != but),
    ]


def _consumers(keys: Mapping[str, str]) -> dict[str, Any]:
    users: list[dict[str, Any]] = [{"nkey": keys["curator"]}]
    for name, key in sorted(keys.items()):
        if name.startswith(CONSUMER_PREFIX):
            publish, subscribe = consumer_permissions(name)
            users.append(_user(key, publish=publish, subscribe=subscribe))
    calls = zip(_mirror_calls(JS_API), _mirror_calls(MIRROR_API), strict=True)
    return {
        "jetstream": "enabled",
        "users": users,
        "imports": [
            *_heard(),
            *({"service": {"account": LOG_ACCOUNT, "subject": subject}, "to": to} for subject, to in calls),
            *(
                {"service": {"account": LOG_ACCOUNT, "subject": f"$JS.FC.{stream}.>"}}
                for stream in (LOG_STREAM, BLOB_STREAM)
            ),
            {"stream": {"account": LOG_ACCOUNT, "subject": f"{MIRROR_DELIVER}.>"}},
        ],
    }
