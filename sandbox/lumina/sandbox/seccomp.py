"""Which system calls a program in the sandbox may make, compiled to a BPF filter in plain Python.

An allow-list: everything else fails with EPERM, as if the kernel forbade it. A few new calls fail with ENOSYS, so that
C libraries fall back to older ones. Measured with Python (requests, Pillow, multiprocessing, asyncio) and Node
(workers, fetch, test runner). System V shared memory is left out: a detached segment is memory that no watchdog sees,
and Python and Node use `/dev/shm`. The filter format is `struct sock_filter` of linux/filter.h; the words that it reads
are those of `struct seccomp_data` in linux/seccomp.h. x86_64 only: numbers differ per architecture.
"""

import struct
from collections.abc import Iterable
from typing import Final

MACHINES: Final = ("x86_64",)
"""Where this list is valid; elsewhere the sandbox refuses."""

SYSCALLS: Final[dict[str, int]] = {
    # file
    "read": 0,
    "write": 1,
    "open": 2,
    "close": 3,
    "stat": 4,
    "fstat": 5,
    "lstat": 6,
    "lseek": 8,
    "pread64": 17,
    "pwrite64": 18,
    "readv": 19,
    "writev": 20,
    "access": 21,
    "dup": 32,
    "dup2": 33,
    "sendfile": 40,
    "fcntl": 72,
    "flock": 73,
    "fsync": 74,
    "fdatasync": 75,
    "truncate": 76,
    "ftruncate": 77,
    "getdents": 78,
    "getcwd": 79,
    "chdir": 80,
    "fchdir": 81,
    "rename": 82,
    "mkdir": 83,
    "rmdir": 84,
    "creat": 85,
    "link": 86,
    "unlink": 87,
    "symlink": 88,
    "readlink": 89,
    "chmod": 90,
    "fchmod": 91,
    "chown": 92,
    "fchown": 93,
    "lchown": 94,
    "umask": 95,
    "utime": 132,
    "statfs": 137,
    "fstatfs": 138,
    "readahead": 187,
    "getxattr": 191,
    "lgetxattr": 192,
    "fgetxattr": 193,
    "listxattr": 194,
    "llistxattr": 195,
    "flistxattr": 196,
    "getdents64": 217,
    "fadvise64": 221,
    "utimes": 235,
    "inotify_init": 253,
    "inotify_add_watch": 254,
    "inotify_rm_watch": 255,
    "openat": 257,
    "mkdirat": 258,
    "fchownat": 260,
    "futimesat": 261,
    "newfstatat": 262,
    "unlinkat": 263,
    "renameat": 264,
    "linkat": 265,
    "symlinkat": 266,
    "readlinkat": 267,
    "fchmodat": 268,
    "faccessat": 269,
    "splice": 275,
    "tee": 276,
    "sync_file_range": 277,
    "utimensat": 280,
    "fallocate": 285,
    "dup3": 292,
    "inotify_init1": 294,
    "preadv": 295,
    "pwritev": 296,
    "syncfs": 306,
    "renameat2": 316,
    "copy_file_range": 326,
    "preadv2": 327,
    "pwritev2": 328,
    "statx": 332,
    "close_range": 436,
    "openat2": 437,
    "faccessat2": 439,
    "fchmodat2": 452,
    # mem
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "mremap": 25,
    "msync": 26,
    "mincore": 27,
    "madvise": 28,
    "mlock": 149,
    "munlock": 150,
    "membarrier": 324,
    "pkey_mprotect": 329,
    "pkey_alloc": 330,
    "pkey_free": 331,
    # proc
    "sched_yield": 24,
    "getpid": 39,
    "fork": 57,
    "vfork": 58,
    "execve": 59,
    "exit": 60,
    "wait4": 61,
    "kill": 62,
    "uname": 63,
    "getrlimit": 97,
    "getrusage": 98,
    "sysinfo": 99,
    "times": 100,
    "getuid": 102,
    "getgid": 104,
    "geteuid": 107,
    "getegid": 108,
    "setpgid": 109,
    "getppid": 110,
    "getpgrp": 111,
    "setsid": 112,
    "getgroups": 115,
    "getresuid": 118,
    "getresgid": 120,
    "getpgid": 121,
    "getsid": 124,
    "capget": 125,
    "getpriority": 140,
    "setpriority": 141,
    "sched_getparam": 143,
    "sched_getscheduler": 145,
    "sched_get_priority_max": 146,
    "sched_get_priority_min": 147,
    "prctl": 157,
    "arch_prctl": 158,
    "setrlimit": 160,
    "gettid": 186,
    "tkill": 200,
    "sched_setaffinity": 203,
    "sched_getaffinity": 204,
    "set_tid_address": 218,
    "restart_syscall": 219,
    "exit_group": 231,
    "tgkill": 234,
    "waitid": 247,
    "set_robust_list": 273,
    "get_robust_list": 274,
    "prlimit64": 302,
    "getcpu": 309,
    "sched_getattr": 315,
    "getrandom": 318,
    "execveat": 322,
    "rseq": 334,
    "pidfd_send_signal": 424,
    "pidfd_open": 434,
    # signal
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "pause": 34,
    "getitimer": 36,
    "alarm": 37,
    "setitimer": 38,
    "rt_sigpending": 127,
    "rt_sigtimedwait": 128,
    "rt_sigqueueinfo": 129,
    "rt_sigsuspend": 130,
    "sigaltstack": 131,
    "signalfd": 282,
    "signalfd4": 289,
    # time
    "nanosleep": 35,
    "gettimeofday": 96,
    "time": 201,
    "timer_create": 222,
    "timer_settime": 223,
    "timer_gettime": 224,
    "timer_getoverrun": 225,
    "timer_delete": 226,
    "clock_gettime": 228,
    "clock_getres": 229,
    "clock_nanosleep": 230,
    "timerfd_create": 283,
    "timerfd_settime": 286,
    "timerfd_gettime": 287,
    # sync
    "poll": 7,
    "pipe": 22,
    "select": 23,
    "futex": 202,
    "epoll_create": 213,
    "epoll_wait": 232,
    "epoll_ctl": 233,
    "pselect6": 270,
    "ppoll": 271,
    "epoll_pwait": 281,
    "eventfd": 284,
    "eventfd2": 290,
    "epoll_create1": 291,
    "pipe2": 293,
    "epoll_pwait2": 441,
    "futex_waitv": 449,
    # net
    "connect": 42,
    "accept": 43,
    "sendto": 44,
    "recvfrom": 45,
    "sendmsg": 46,
    "recvmsg": 47,
    "shutdown": 48,
    "bind": 49,
    "listen": 50,
    "getsockname": 51,
    "getpeername": 52,
    "socketpair": 53,
    "setsockopt": 54,
    "getsockopt": 55,
    "accept4": 288,
    "recvmmsg": 299,
    "sendmmsg": 307,
}
"""Allowed with any arguments: files, memory, processes, signals, time, synchronisation, sockets; in that order."""

CLONE: Final = 56
SOCKET: Final = 41
IOCTL: Final = 16
PERSONALITY: Final = 135
UNKNOWN: Final[dict[str, int]] = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "clone3": 435,
    "landlock_create_ruleset": 444,
    "memfd_secret": 447,
}
"""Answered with ENOSYS."""

SOCKET_FAMILIES: Final = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6. Others, AF_VSOCK above all, are not covered by a network namespace."""
CLONE_NEW_ANY: Final = 0x7E020000
"""The namespace flags of clone."""
TIOCSTI: Final = 0x5412
"""Types into somebody's terminal."""

_AUDIT_ARCH_X86_64: Final = 0xC000003E
_X32_BIT: Final = 0x40000000
_NR, _ARCH, _ARG0, _ARG1 = 0, 4, 16, 24
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL = 0x15, 0x25, 0x35
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_EPERM, _ENOSYS = 0x00050001, 0x00050026

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand; jumps count from the next instruction."""


def program() -> bytes:
    """Return the filter as an array of `struct sock_filter`, as bubblewrap's `--seccomp` reads it."""
    filters: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH_X86_64),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
    ]
    for low, high in ranges(SYSCALLS.values()):
        filters += _between(low, high, answer=_ALLOW)
    for number in sorted(UNKNOWN.values()):
        filters += _between(number, number, answer=_ENOSYS)
    filters += _checked(CLONE, [(_LOAD, 0, 0, _ARG0), (_AND, 0, 0, CLONE_NEW_ANY), *_only((0,))])
    filters += _checked(SOCKET, [(_LOAD, 0, 0, _ARG0), *_only(SOCKET_FAMILIES)])
    filters += _checked(
        IOCTL,
        [(_LOAD, 0, 0, _ARG1), (_JUMP_EQUAL, 0, 1, TIOCSTI), (_RETURN, 0, 0, _EPERM), (_RETURN, 0, 0, _ALLOW)],
    )
    filters += _checked(PERSONALITY, [(_LOAD, 0, 0, _ARG0), *_only((0, 0xFFFFFFFF))])
    filters.append((_RETURN, 0, 0, _EPERM))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in filters)


def ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return the runs of consecutive numbers, for instance (0, 3), (7, 7)."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)


def _between(low: int, high: int, *, answer: int) -> list[Instruction]:
    if low == high:
        return [(_JUMP_EQUAL, 0, 1, low), (_RETURN, 0, 0, answer)]
    return [(_JUMP_GREATER_EQUAL, 0, 2, low), (_JUMP_GREATER, 1, 0, high), (_RETURN, 0, 0, answer)]


def _checked(number: int, tests: list[Instruction]) -> list[Instruction]:
    """Return tests of the arguments of one call; they must end in a return, since they overwrite the number."""
    return [(_JUMP_EQUAL, 0, len(tests), number), *tests]


def _only(values: tuple[int, ...]) -> list[Instruction]:
    """Return: allow when the accumulator is one of `values`, else EPERM."""
    tests: list[Instruction] = []
    for value in values:
        tests += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*tests, (_RETURN, 0, 0, _EPERM)]
