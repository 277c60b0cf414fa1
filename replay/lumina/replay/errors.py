"""What can go wrong with a proof. A divergence or damage is a verdict in a report, not an error.

ReplayError
├── RunUnknown       the log holds no record of this run: check the id
├── BadBreakpoint    an expression that can't be asked: mend it at the place that the message shows
├── SeqOutside       the run has no record there: the message names the nearest
├── RowLost          a row of a dataset can't be made: the message says what the log lacks for it
├── NotRedactable    what an export was asked to hide can't be hidden: the message says why
├── ForkProblem      a fork that can't be meant: the message says what to ask for instead
└── BlobLost         a blob is gone, changed, or not what its record says: the proof reports it as damage
    └── BlobLeftOut  an exported file was made without it: what needs it can't be proved from this file
"""


class ReplayError(Exception):
    """Base of all errors of replay."""


class RunUnknown(ReplayError):
    """The log holds no record of this run."""


class BlobLost(ReplayError):
    """A blob is not what a record says. The message names the blob and the record."""


class BlobLeftOut(BlobLost):
    """An exported file was made without a blob. The message names it and the record that needs it."""


class BadBreakpoint(ReplayError):
    """An expression is wrong. The message has a line with the expression and one that points at the mistake."""


class SeqOutside(ReplayError):
    """The run has no record with this sequence."""


class ForkProblem(ReplayError):
    """A wish about a fork can't be fulfilled. The message says why, and what can."""


class RowLost(ReplayError):
    """A row of a dataset can't be made from what the log holds. The message says what is missing."""


class NotRedactable(ReplayError):
    """A field can't be hidden, or there is none of this name. The message names it, or those that there are."""
