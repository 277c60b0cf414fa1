"""Category `timer`: time passed. The only way in which a clock reaches a keeper."""

from lumina.events.base import Event
from lumina.events.values import Milliseconds, Name


class TimerElapsed(Event, frozen=True, kw_only=True, tag="timer.elapsed.v1"):
    """A deadline that a keeper's state asked for has come.

    Written by that keeper's runner under the name `clock`, so that a keeper's own chain holds decisions only.
    """

    timer: Name
    due: Milliseconds


TimerEvent = TimerElapsed
