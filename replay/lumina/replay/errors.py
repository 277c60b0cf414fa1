"""What can go wrong with a proof. A divergence or damage is a verdict in a report, not an error.

ReplayError
├── RunUnknown       the log holds no record of this run: check the id
└── CastIncomplete   a record was written by an agent that this version of Lumina has no pure core for: upgrade
"""


class ReplayError(Exception):
    """Base of all errors of replay."""


class RunUnknown(ReplayError):
    """The log holds no record of this run."""


class CastIncomplete(ReplayError):
    """An agent wrote to the log that this version can't re-decide."""
