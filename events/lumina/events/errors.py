"""What can be wrong with a record.

EventError
├── UnknownEvent   its type is not one of ours: written by a newer version; upgrade to read it
└── InvalidEvent   its body or envelope does not fit its type: whoever wrote it is broken; it is not on the log's terms
"""


class EventError(Exception):
    """Base of all errors about single records."""


class UnknownEvent(EventError):
    """The type is not registered here. Read it with the version that wrote it."""


class InvalidEvent(EventError):
    """The record can't be decoded. The message names the field."""
