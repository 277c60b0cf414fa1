"""Every projection there is."""

from typing import Final

from lumina.projections.attempts import Attempts
from lumina.projections.fold import Projection
from lumina.projections.queue import Queue
from lumina.projections.residency import Residency
from lumina.projections.runs import Runs
from lumina.projections.throughput import Throughput

PROJECTIONS: Final[tuple[Projection, ...]] = (Runs(), Attempts(), Residency(), Queue(), Throughput())
