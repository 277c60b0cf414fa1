"""The watchdog's eyes: what all processes of one sandbox use together, since rlimits hold for each alone.

Read through descriptors of the sandbox's own `/proc` and folders, which were opened before anything foreign ran: they
show this sandbox's processes and nothing else, and what a program does to its paths does not matter.
"""

import os
from dataclasses import dataclass
from types import TracebackType

from lumina.events.contract import Limits
from lumina.sandbox.policy import INODES_MAX
from lumina.sandbox.port import CODE, SHARED, TEMPORARY, Ended

_FOLDERS = (CODE, TEMPORARY, SHARED)
_OWN_PROCESSES = 1
"""Bubblewrap's process 1."""
_STATUS_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a sandbox uses at one moment: tasks are processes and threads."""

    tasks: int
    memory_bytes: int
    inodes: int


class Held:
    """Descriptors of the inside of one sandbox, open until the end, alive or dead."""

    def __init__(self, process: int) -> None:
        """Open them by way of the sandbox's process 1. Raises OSError when it is gone already."""
        self._descriptors: list[int] = []
        try:
            for path in ("/proc", *_FOLDERS):
                opened = os.open(f"/proc/{process}/root{path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._descriptors.append(opened)
        except OSError:
            self.close()
            raise

    @property
    def code(self) -> int:
        """Descriptor of `/code`."""
        return self._descriptors[1]

    def usage(self, *, tasks_max: int) -> Usage:
        """Return what is used now. With more processes than `tasks_max` their memory is not looked at."""
        try:
            names = os.listdir(self._descriptors[0])  # noqa: PTH208 - a descriptor, not a path
        except OSError:
            return Usage(tasks=0, memory_bytes=0, inodes=0)  # the whole process namespace is gone
        processes = [name for name in names if name.isdigit()]
        tasks, memory = len(processes), 0
        if tasks - _OWN_PROCESSES <= tasks_max:
            for name in processes:
                threads, used = self._status(name)
                tasks += threads - 1
                memory += used
        return Usage(tasks=tasks - _OWN_PROCESSES, memory_bytes=memory, inodes=self._inodes())

    def _status(self, name: str) -> tuple[int, int]:
        """Return the threads and the private, shared and swapped bytes of a process; (1, 0) when it is gone."""
        try:
            descriptor = os.open(f"{name}/status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._descriptors[0])
        except OSError:
            return 1, 0
        try:
            text = os.read(descriptor, _STATUS_BYTES)
        except ProcessLookupError:
            return 1, 0
        finally:
            os.close(descriptor)
        threads, kibibytes = 1, 0
        for line in text.splitlines():
            match line.split():
                case [b"RssAnon:" | b"RssShmem:" | b"VmSwap:", amount, _]:
                    kibibytes += int(amount)
                case [b"Threads:", count]:
                    threads = int(count)
                case _:
                    pass
        return threads, kibibytes * 1024

    def _inodes(self) -> int:
        """Return the most inodes that any writable folder uses."""
        sizes = (os.fstatvfs(descriptor) for descriptor in self._descriptors[1:])
        return max(size.f_files - size.f_ffree for size in sizes)

    def close(self) -> None:
        """Let go; what the folders held is freed with the last descriptor."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> "Held":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def transgression(usage: Usage, *, limits: Limits) -> Ended | None:
    """Return the limit that is broken, or None."""
    if usage.tasks > limits.processes_max:
        return Ended.PROCESSES
    if usage.memory_bytes > limits.memory_bytes_max:
        return Ended.MEMORY
    if usage.inodes > INODES_MAX:
        return Ended.FILES
    return None
