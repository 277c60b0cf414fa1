"""One agent as a process of its own: `python -m lumina.cli.agent ROLE`, which is what `lumina agent` and `up` start."""

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import structlog

from lumina.agents.errors import Diverged
from lumina.bus.errors import BusError, LogDamaged
from lumina.cli.errors import CliProblem, UsageProblem, one_sentence
from lumina.cli.exits import Exit
from lumina.cli.home import find_home
from lumina.cli.place import Place, bus
from lumina.cli.roles import ROLES, Surroundings
from lumina.models.errors import ModelError

PR_SET_PDEATHSIG = 1

log = structlog.get_logger(__name__)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options of an agent process."""
    parser = argparse.ArgumentParser(prog="lumina agent", description=__doc__)
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--home", type=Path, default=None, help="data folder")
    parser.add_argument("--url", required=True, help="NATS server")
    parser.add_argument("--name", default="", help="for the log file; several instances of one role may run")
    parser.add_argument("--node-file", type=Path, default=None, help="node configuration (default: HOME/node.toml)")
    parser.add_argument("--parent", type=int, default=0, help="end when this process ends")
    return parser.parse_args(arguments)


def configure_logging(name: str) -> None:
    """Log JSON lines to standard error, which the supervisor keeps."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(process=name, pid=os.getpid())


def end_with(parent: int) -> None:
    """Ask the kernel for SIGTERM when `parent` ends, however it ends (Linux, prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before we could ask
        raise SystemExit(Exit.FAILED)


async def serve(options: argparse.Namespace) -> None:
    """Run the agent until SIGTERM or SIGINT."""
    home = find_home(options.home)
    place = Place(home=home, url=options.url)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_end_on_signal, tasks.cancel_scope)
        async with bus(place, role=options.role, name=options.name) as connected:
            await ROLES[options.role](
                Surroundings(
                    events=connected.events,
                    blobs=connected.blobs,
                    live=connected.live,
                    home=home,
                    node_file=options.node_file or home.node_file,
                )
            )


async def _end_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("agent.stops", signal=signal.Signals(number).name)
            scope.cancel()
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one agent; the exit code tells the supervisor whether starting again may help."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    configure_logging(options.name or options.role)
    if options.parent:
        end_with(options.parent)
    code = Exit.OK
    try:
        anyio.run(serve, options)
    except* Diverged as group:
        log.error("agent.diverged", reason=one_sentence(group))
        code = Exit.PARTIAL
    except* LogDamaged as group:
        log.error("agent.log_damaged", reason=one_sentence(group))
        code = Exit.DAMAGED
    except* UsageProblem as group:  # a restart would meet it again
        log.error("agent.refused", reason=one_sentence(group))
        code = Exit.USAGE
    except* (BusError, CliProblem, ModelError) as group:
        log.error("agent.stopped", reason=one_sentence(group))
        code = Exit.FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
