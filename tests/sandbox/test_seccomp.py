"""The system call filter, run instruction by instruction on made-up calls."""

import struct

import pytest

from lumina.sandbox import seccomp

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
X86_64 = 0xC000003E


def verdict(number: int, *arguments: int, arch: int = X86_64) -> int:
    """Return what the filter answers, by the rules of classic BPF."""
    words = struct.pack("=IIQ6Q", number, arch, 0, *(arguments + (0,) * 6)[:6])
    code = list(struct.iter_unpack("=HBBI", seccomp.program()))
    at = accumulator = 0
    while True:
        operation, yes, no, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", words, operand)
            case 0x54:
                accumulator &= operand
            case 0x06:
                return int(operand)
            case 0x15:
                at += yes if accumulator == operand else no
            case 0x25:
                at += yes if accumulator > operand else no
            case 0x35:
                at += yes if accumulator >= operand else no
            case _:
                raise AssertionError(f"unknown operation {operation:#x}")


def test_every_name_on_the_list_is_allowed() -> None:
    """Each number of the table passes with any arguments."""
    for name, number in seccomp.SYSCALLS.items():
        assert verdict(number, 2**64 - 1, 2**64 - 1) == ALLOW, name


def test_all_other_numbers_are_refused() -> None:
    """What is not on the list fails as forbidden, or as unknown where libraries then use something older."""
    listed = set(seccomp.SYSCALLS.values()) | {seccomp.CLONE, seccomp.SOCKET, seccomp.IOCTL, seccomp.PERSONALITY}
    for number in set(range(600)) - listed:
        expected = ENOSYS if number in seccomp.UNKNOWN.values() else EPERM
        assert verdict(number) == expected, number


@pytest.mark.parametrize(
    ("name", "number"),
    [("ptrace", 101), ("mount", 165), ("unshare", 272), ("setns", 308), ("bpf", 321), ("keyctl", 250), ("shmget", 29)],
)
def test_the_dangerous_ones_are_not_on_the_list(name: str, number: int) -> None:
    """Tracing, mounts, namespaces, kernel programs, key rings and memory that no watchdog sees."""
    assert name not in seccomp.SYSCALLS
    assert verdict(number) == EPERM


def test_arguments_decide_about_four_calls() -> None:
    """Namespaces by clone, address families, typing into terminals, personalities."""
    assert verdict(seccomp.CLONE, 0x01200011) == ALLOW
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert verdict(seccomp.CLONE, 0x11 | flag) == EPERM
    assert [verdict(seccomp.SOCKET, family) for family in (1, 2, 10)] == [ALLOW] * 3
    assert [verdict(seccomp.SOCKET, family) for family in (0, 16, 17, 38, 40, 44)] == [EPERM] * 6
    assert verdict(seccomp.IOCTL, 0, seccomp.TIOCSTI) == EPERM
    assert verdict(seccomp.IOCTL, 0, 0x5401) == ALLOW
    assert verdict(seccomp.PERSONALITY, 0xFFFFFFFF) == ALLOW
    assert verdict(seccomp.PERSONALITY, 0x40000) == EPERM


def test_other_call_conventions_kill() -> None:
    """32-bit and x32 calls have other numbers, so nothing may be concluded from them."""
    assert verdict(0, arch=0x40000003) == KILL
    assert verdict(0x40000000 + 59) == KILL


def test_the_filter_fits_the_kernel() -> None:
    """At most 4,096 instructions of eight bytes."""
    assert len(seccomp.program()) % 8 == 0
    assert len(seccomp.program()) // 8 <= 4096


def test_ranges_are_runs_of_numbers() -> None:
    """Consecutive numbers become one comparison."""
    assert seccomp.ranges([3, 1, 2, 7, 9, 8, 2]) == ((1, 3), (7, 9))
