"""What can go wrong with the store of the projections. All of it can be rebuilt from the log; nothing is lost.

ProjectionError
├── StoreDamaged      the SQLite file is not what was written: call `Store.rebuild` and catch up again
├── StoreUnavailable  the file can't be opened or written (locked, full disk, no right): the message says which
├── RecordSkipped     records were given out of order: read on from `Store.position`
└── NoSuchRun         no run, or more than one, has an id that starts like this: the message lists what comes near
    └── NoRunCalled   no run at all
"""


class ProjectionError(Exception):
    """Base of all errors of the projections."""


class StoreDamaged(ProjectionError):
    """The file is damaged. Rebuild it from the log."""


class StoreUnavailable(ProjectionError):
    """The file can't be used now. Nothing was changed; make room or give the right, then try again."""


class RecordSkipped(ProjectionError):
    """A record is missing between the store's position and what it was given. Nothing was changed."""


class NoSuchRun(ProjectionError):
    """The prefix of a run id names no run, or several. Give more of it."""


class NoRunCalled(NoSuchRun):
    """No run's id begins so."""
