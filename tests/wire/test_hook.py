"""Hooks: which run, in what order, and what they are told."""

import pytest

from softcxl.wire import (
    RO,
    RW,
    RW1C,
    RWO,
    Block,
    DeclarationError,
    RangeError,
    Register,
    RegisterFile,
    at,
    bit,
    bits,
    on_read,
    on_write,
)


class Control(Register, width=32):
    doorbell = bit(0, RW)
    interrupt = bit(1, RW)
    size = bits(11, 4, RW)  # lies in two bytes
    error = bits(31, 24, RW1C, reset=0xFF)


class Command(Register, width=64):
    opcode = bits(15, 0, RW)
    length = bits(39, 24, RW)  # lies in both halves
    done = bit(63, RO)


class Mailbox(Block):
    control = at(0x0, Control)
    lock = at(0x4, Control)
    command = at(0x8, Command)


class Device:
    """Records what its hooks are told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    @on_write(Mailbox.command)
    def command(self, old: int, new: int) -> None:
        self.calls.append(("command", old, new))

    @on_write(Mailbox.command.length)
    def length(self, old: int, new: int) -> None:
        self.calls.append(("length", old, new))

    @on_write(Mailbox.control.doorbell)
    def ring(self, old: int, new: int) -> None:
        self.calls.append(("ring", old, new))

    @on_write(Mailbox.control.size)
    def resize(self, old: int, new: int) -> None:
        self.calls.append(("size", old, new))

    @on_write(Mailbox.control)
    def control(self, old: int, new: int) -> None:
        self.calls.append(("control", old, new))

    @on_read(Mailbox.command.done)
    def refresh(self) -> None:
        self.calls.append(("refresh",))

    def told(self) -> list[tuple[object, ...]]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def device():
    return Device()


@pytest.fixture
def file(device):
    file = RegisterFile(0x100)
    file.place(0x20, Mailbox, hooks=device)
    return file


def test_hooks_are_told_the_value_before_and_after_the_laws(file, device):
    file.write(0x20, b"\x01\x00\x00\x0f")
    assert device.told() == [("ring", 0, 1), ("size", 0, 0), ("control", 0xFF000000, 0xF0000001)]
    file.write(0x20, b"\x01\x00\x00\x00")
    assert device.told()[0] == ("ring", 1, 1)


def test_only_hooks_whose_bytes_are_written_run(file, device):
    file.write(0x21, b"\x0f")
    assert device.told() == [("size", 0, 0xF0), ("control", 0xFF000000, 0xFF000F00)]
    file.write(0x22, b"\xff")
    assert device.told() == [("control", 0xFF000F00, 0xFF000F00)]
    file.write(0x24, b"\xff\xff\xff\xff")
    file.write(0x1C, b"\xff\xff\xff\xff")
    file.write(0x20, b"")
    assert device.told() == []


def test_half_of_a_wide_register(file, device):
    file.write(0x2C, b"\x34\x00\x00\xff")
    assert device.told() == [("command", 0, 0x34_0000_0000), ("length", 0, 0x3400)]
    file.write(0x28, b"\x00\x40\x00\x12")
    assert device.told() == [("command", 0x34_0000_0000, 0x34_1200_4000), ("length", 0x3400, 0x3412)]


def test_one_write_over_several_registers_runs_them_by_offset(file, device):
    file.write(0x20, b"\x01" + bytes(7) + b"\x02" + bytes(7))
    assert [call[0] for call in device.told()] == ["ring", "size", "control", "command", "length"]
    file.write(0x1F, bytes(18))
    assert device.told() == [
        ("ring", 1, 0),
        ("size", 0, 0),
        ("control", 0xFF000001, 0xFF000000),
        ("command", 2, 0),
        ("length", 0, 0),
    ]


def test_read_hooks_run_before_the_value_is_taken(file, device):
    class Counter:
        def __init__(self, mailbox: Mailbox | None = None) -> None:
            self.mailbox, self.reads = mailbox, 0

        @on_read(Mailbox.command)
        def count(self) -> None:
            self.reads += 1
            assert self.mailbox is not None
            self.mailbox.command.opcode = self.reads

    other = RegisterFile(0x40)
    counter = Counter()
    counter.mailbox = other.place(0, Mailbox, hooks=counter)
    assert other.read(8, 2) == b"\1\0"
    assert other.read(8, 2) == b"\2\0"
    assert other.read(0, 16)[8:] == b"\3" + bytes(7)
    assert other.read(15, 1) == b"\0"
    assert counter.reads == 4
    for offset, size in [(0, 8), (16, 4), (8, 0), (5, 3)]:
        other.read(offset, size)
    other.peek(8, 8)
    assert counter.reads == 4


def test_only_reads_of_its_byte_reach_a_field(file, device):
    file.read(0x28, 4)
    file.read(0x2E, 1)
    assert device.told() == []
    file.read(0x2F, 1)
    file.read(0x28, 8)
    file.read(0, 0x100)
    file.read(0x2D, 4)
    assert device.told() == [("refresh",)] * 4


def test_a_read_outside_runs_no_hook(file, device):
    with pytest.raises(RangeError):
        file.read(0x28, 0x1000)
    assert device.told() == []


def test_the_device_and_the_debugger_set_off_nothing(file, device):
    mailbox = file.place(0x60, Mailbox)
    mailbox.control.doorbell = True
    file.poke(0x20, b"\1")
    file.peek(0x28, 8)
    file.reset()
    assert device.told() == []


def test_a_hook_that_changes_registers_does_not_change_what_others_are_told():
    class Clearing:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []
            self.mailbox: Mailbox | None = None

        @on_write(Mailbox.control.doorbell)
        def clear(self, old: int, new: int) -> None:
            assert self.mailbox is not None
            self.mailbox.control.doorbell = False

        @on_write(Mailbox.control)
        def look(self, old: int, new: int) -> None:
            self.seen.append((old, new))

    hooks = Clearing()
    file = RegisterFile(0x10)
    hooks.mailbox = file.place(0, Mailbox, hooks=hooks)
    file.write(0, b"\1\0\0\0")
    assert hooks.seen == [(0xFF000000, 0xFF000001)]
    assert file.read(0, 1) == b"\0"


def test_a_hook_may_write_as_software():
    class Chain:
        def __init__(self, file: RegisterFile) -> None:
            self.file, self.depth = file, 0

        @on_write(Mailbox.control.doorbell)
        def again(self, old: int, new: int) -> None:
            self.depth += 1
            if new:
                self.file.write(0, b"\0")

    file = RegisterFile(0x10)
    chain = Chain(file)
    file.place(0, Mailbox, hooks=chain)
    file.write(0, b"\1")
    assert chain.depth == 2


def test_a_write_that_spends_a_once_field_runs_its_hook_each_time():
    class Lock(Register, width=8):
        config = bit(0, RWO)

    class Locks(Block):
        lock = at(0, Lock)

    class Hooks:
        calls: list[tuple[int, int]] = []  # noqa: RUF012

        @on_write(Locks.lock.config)
        def locked(self, old: int, new: int) -> None:
            self.calls.append((old, new))

    file = RegisterFile(1)
    file.place(0, Locks, hooks=Hooks())
    for data in (b"\1", b"\0", b"\1"):
        file.write(0, data)
    assert Hooks.calls == [(0, 1), (1, 1), (1, 1)]


def test_subclasses_override_hooks_and_add_their_own():
    class More(Device):
        def ring(self, old: int, new: int) -> None:
            self.calls.append(("loud", old, new))

        @on_write(Mailbox.control.interrupt)
        def interrupt(self, old: int, new: int) -> None:
            self.calls.append(("interrupt", old, new))

    device, file = More(), RegisterFile(0x10)
    file.place(0, Mailbox, hooks=device)
    file.write(0, b"\3")
    assert [call[0] for call in device.told()] == ["loud", "size", "control", "interrupt"]


def test_one_method_for_several_places_and_several_owners():
    class Both:
        def __init__(self) -> None:
            self.calls = 0

        @on_write(Mailbox.control.doorbell)
        @on_write(Mailbox.lock.doorbell)
        def either(self, old: int, new: int) -> None:
            self.calls += 1

    file, both, device = RegisterFile(0x10), Both(), Device()
    mailbox = file.place(0, Mailbox, hooks=both)
    file.listen(mailbox, device)
    file.write(0, b"\1")
    file.write(4, b"\1")
    assert both.calls == 2
    assert [call[0] for call in device.told()] == ["ring", "size", "control"]


def test_hooks_of_a_block_hear_the_blocks_that_extend_it():
    class Bigger(Mailbox):
        status = at(0x10, Control)

    device, file = Device(), RegisterFile(0x40)
    file.place(0x10, Bigger, hooks=device)
    file.write(0x10, b"\1")
    assert device.told()[0] == ("ring", 0, 1)


def test_hooks_of_other_blocks_are_left_alone():
    class Other(Block):
        control = at(0, Control)

    device, file = Device(), RegisterFile(0x40)
    file.place(0, Other, hooks=device)
    file.write(0, b"\1")
    assert device.told() == []


def test_a_register_without_a_place_cannot_be_listened_to():
    for place in (Control, Control.doorbell):
        with pytest.raises(DeclarationError, match=r"has no place: name it through its block"):
            on_write(place)
