"""What can go wrong with a proof. A divergence or damage is a verdict in a report, not an error.

ReplayError
├── RunUnknown       the log holds no record of this run: check the id
└── BlobLost         a blob is gone, changed, or not what its record says: the proof reports it as damage
"""


class ReplayError(Exception):
    """Base of all errors of replay."""


class RunUnknown(ReplayError):
    """The log holds no record of this run."""


class BlobLost(ReplayError):
    """A blob is not what a record says. The message names the blob and the record."""
