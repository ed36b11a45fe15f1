"""What is told from a guest's console, with lines as Linux 7.2 printed them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from softcxl.lab.console import Console
from softcxl.lab.errors import LabError

PANIC = b"[    8.1] Kernel panic - not syncing: sysrq triggered crash\r\n[    8.2] CPU: 0 UID: 0 PID: 129 Comm: sh\r\n"
PANIC_END = b"[    8.9] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\r\n"


def console(log: Path | None = None) -> Console:
    return Console(threading.Condition(), log)


def test_panic_in_pieces() -> None:
    one = console()
    for at in range(len(PANIC)):
        assert not one.panic_told()
        one.feed(PANIC[at : at + 1])
    assert one.panic == "sysrq triggered crash"
    one.feed(PANIC_END)
    assert one.panic_told()
    one.forget()
    one.feed(b"[    0.0] Linux version 7.2.12\r\n")
    assert one.panic is None
    assert not one.panic_told()


def test_unfit_needs_its_whole_line() -> None:
    one = console()
    one.feed(b"softcxl-unfit: this kernel has ")
    assert one.unfit is None
    one.feed(b"no CXL\r\n")
    assert one.unfit == "this kernel has no CXL"


def test_tail_without_escapes() -> None:
    one = console()
    one.feed(b"\x1b[2J\x1b[0;32mfirst\x1b[0m\r\nsecond\r\nthird")
    assert one.text() == "first\nsecond\nthird"
    assert one.tail(2) == "second\nthird"


def test_the_ring_keeps_the_end() -> None:
    one = console()
    for number in range(40_000):
        one.feed(b"line %d\n" % number)
    assert one.tail(1) == "line 39999"
    assert len(one.text()) <= 1 << 18


def test_log(tmp_path: Path) -> None:
    one = console(tmp_path / "log")
    one.feed(PANIC)
    one.close()
    assert (tmp_path / "log").read_bytes() == PANIC


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"The console log .* cannot be written: No such file or directory"):
        console(tmp_path / "gone" / "log")


def test_a_full_disk_costs_the_log_and_nothing_else() -> None:
    one = console(Path("/dev/full"))
    one.feed(b"first\n")
    one.feed(b"second\n")
    assert one.text() == "first\nsecond\n"
    one.close()
