"""The access laws again, one line each and bit by bit, and checks that hold declared registers to them.

`softcxl.wire` applies the laws to whole words with masks. Here the same laws are written a second time,
without masks and without a look at the first, so that each can show the other wrong. Hold your own
declarations to them in a test::

    from softcxl.testing.laws import check_block, check_register, declared

    @pytest.mark.parametrize("cls", declared("mydevice.registers", Register))
    def test_laws(cls):
        check_register(cls)

A law of your own (a `softcxl.wire.Law` of another name) comes with its line:
``check_register(cls, laws=LAWS | {"MyLaw": lambda old, data, once, locked: old ^ data})``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from softcxl.wire import Block, Register, RegisterFile, Reset, at

BitLaw = Callable[[int, int, bool, bool], int]
"""The bit after a write, given: the bit before; the bit written; whether it has taken its one write; whether
the device has it locked."""

LAWS: dict[str, BitLaw] = {
    "RO": lambda old, data, once, locked: old,
    "RW": lambda old, data, once, locked: data,
    "RW1C": lambda old, data, once, locked: 0 if data else old,
    "RW1S": lambda old, data, once, locked: 1 if data else old,
    "RWO": lambda old, data, once, locked: old if once else data,
    "RWL": lambda old, data, once, locked: old if locked else data,
    "HwInit": lambda old, data, once, locked: old,
    "RsvdP": lambda old, data, once, locked: old,
    "RsvdZ": lambda old, data, once, locked: old,
    "ROS": lambda old, data, once, locked: old,
    "RWS": lambda old, data, once, locked: data,
    "RW1CS": lambda old, data, once, locked: 0 if data else old,
    "RW1SS": lambda old, data, once, locked: 1 if data else old,
    "RWOS": lambda old, data, once, locked: old if once else data,
    "RWLS": lambda old, data, once, locked: old if locked else data,
}

STICKY = frozenset(("ROS", "RWS", "RW1CS", "RW1SS", "RWOS", "RWLS"))
"""The laws of bits that live through a hot and a function-level reset."""

WIDTHS = (1, 2, 4, 8, 3, 16)
"""Access sizes in bytes: those that processors make, then two that only a debugger or a burst makes."""


@dataclass(slots=True)
class _Bit:
    """One placed bit: its name for messages, the name of its law, and its state."""

    name: str
    law: str
    value: int
    sealed: int
    once: bool = False
    locked: bool = False

    def write(self, data: int, laws: Mapping[str, BitLaw]) -> None:
        self.value = laws[self.law](self.value, data, self.once, self.locked)
        self.once = True

    def reset(self, kind: Reset) -> None:
        if kind is Reset.COLD or self.law not in STICKY:
            self.value, self.once, self.locked = self.sealed, False, False


class _Model:
    """A register file as a dictionary of bits: the slow, obvious one."""

    def __init__(self, block: type[Block], base: int, laws: Mapping[str, BitLaw]) -> None:
        self.laws, self.base = laws, base
        self.bits: dict[int, _Bit] = {}
        for placed in block.__layout__.registers:
            first = 8 * (base + placed.offset)
            for position in range(placed.register.__layout__.width):
                self.bits[first + position] = _Bit(f"{placed.name}[{position}]", "RsvdP", 0, 0)
            for field in placed.register.__layout__.fields:
                if field.law.name not in laws:
                    raise KeyError(f"{field.label}: no bitwise law is given for {field.law.name}")
                for position in range(field.lo, field.hi + 1):
                    value = field.reset >> (position - field.lo) & 1
                    self.bits[first + position] = _Bit(field.label, field.law.name, value, value)

    def write(self, offset: int, data: bytes) -> None:
        for index, byte in enumerate(data):
            for position in range(8):
                if bit := self.bits.get(8 * (offset + index) + position):
                    bit.write(byte >> position & 1, self.laws)

    def difference(self, size: int, seen: bytes) -> str:
        """What `seen`, the whole file, has otherwise than this model; empty where they agree."""
        wrong = []
        for position in range(8 * size):
            bit = self.bits.get(position)
            expected, found = bit.value if bit else 0, seen[position // 8] >> position % 8 & 1
            if expected != found:
                name = f"{bit.name} ({bit.law})" if bit else "nothing is placed there"
                wrong.append(f"bit {position - 8 * self.base} is {found}, not {expected}: {name}")
        return "\n".join(wrong)


class _Trial:
    """A register file and its model, put through the same random steps."""

    def __init__(self, block: type[Block], laws: Mapping[str, BitLaw], seed: int) -> None:
        self.random = random.Random(seed)
        # Bytes on either side, so that the widest access can reach over each end.
        self.base = max(WIDTHS, default=1) + max(
            (one.register.__layout__.size for one in block.__layout__.registers), default=0
        )
        self.size = self.base + block.__layout__.size + self.base
        self.file, self.model = RegisterFile(self.size), _Model(block, self.base, laws)
        self.block = self.file.place(self.base, block)
        self.registers: list[Register] = [
            getattr(self.block, placed.name) for placed in block.__layout__.registers
        ]
        self.name = block.__layout__.name
        self.check("is placed")

    def check(self, step: str) -> None:
        if wrong := self.model.difference(self.size, self.file.peek(0, self.size)):
            raise AssertionError(f"{self.name}, after it {step}:\n{wrong}")

    def bytes(self, size: int) -> bytes:
        """Random bytes; now and then all zeros or all ones."""
        fill = self.random.choice((None, None, None, None, 0x00, 0xFF))
        return self.random.randbytes(size) if fill is None else bytes([fill]) * size

    def write(self, offset: int, size: int) -> None:
        data = self.bytes(size)
        self.file.write(offset, data)
        self.model.write(offset, data)
        self.check(f"takes a write of {data.hex()} at byte {offset - self.base}")
        found, expected = self.file.read(offset, size), self.file.peek(offset, size)
        assert found == expected, (
            f"{self.name}: reads {found.hex()} at byte {offset - self.base}, holds {expected.hex()}"
        )

    def assign(self) -> None:
        """Let the device set every register, laws or no laws."""
        for register in self.registers:
            register.assign(self.random.getrandbits(register.__layout__.width))
        seen = self.file.peek(0, self.size)
        for position, bit in self.model.bits.items():
            bit.value = seen[position // 8] >> position % 8 & 1

    def lock(self, locked: bool) -> None:
        register = self.random.choice(self.registers)
        (self.file.lock if locked else self.file.unlock)(register)
        first = 8 * register._at
        for position in range(first, first + register.__layout__.width):
            self.model.bits[position].locked = locked

    def reset(self, kind: Reset) -> None:
        self.file.reset(kind)
        for bit in self.model.bits.values():
            bit.reset(kind)
        self.check(f"has a {kind.name} reset")

    def seal(self) -> None:
        self.file.seal()
        for bit in self.model.bits.values():
            bit.sealed = bit.value

    def run(self, accesses: list[tuple[int, int]]) -> None:
        """Each access (offset in the block, size) once, in random order, among what devices and resets do."""
        steps: list[Callable[[], None]] = [
            self.assign,
            self.assign,
            lambda: self.lock(True),
            lambda: self.lock(False),
            lambda: self.reset(self.random.choice(list(Reset))),
        ]
        self.random.shuffle(accesses)
        for number, (offset, size) in enumerate(accesses):
            if number == len(accesses) // 2:
                self.seal()
            if self.random.random() < 0.5:
                self.random.choice(steps)()
            self.write(self.base + offset, size)
        for kind in (Reset.FLR, Reset.HOT, Reset.COLD):
            self.assign()
            self.reset(kind)


def check_register(
    cls: type[Register], *, laws: Mapping[str, BitLaw] = LAWS, rounds: int = 2, seed: int = 0
) -> None:
    """Hold one register to the laws of its fields, or raise `AssertionError` that names the wrong bits.

    It is written with every access width at every alignment that touches it, from random values, while the
    device sets, locks, seals and resets it; afterwards every bit, and every byte beside it, is what the
    bitwise laws say. The device's own reads and writes of each field are checked too.
    """
    _check_fields(cls)
    one: type[Block] = type(cls.__name__, (Block,), {"register": at(0, cls)})
    size = cls.__layout__.size
    accesses = [(offset, width) for width in {*WIDTHS, size} for offset in range(1 - width, size)]
    for number in range(rounds):
        _Trial(one, laws, seed + number).run(accesses)


def check_block(
    cls: type[Block], *, laws: Mapping[str, BitLaw] = LAWS, accesses: int = 300, seed: int = 0
) -> None:
    """Hold the registers of a block to their laws under accesses that reach over several and over the gaps.

    Raises `AssertionError` that names the wrong bits. Each register by itself is `check_register`'s.
    """
    trial = _Trial(cls, laws, seed)
    if not trial.registers:
        return
    placed = cls.__layout__.registers
    ends = [edge for one in placed for edge in (one.offset, one.offset + one.register.__layout__.size)]
    chosen = []
    for _ in range(accesses):
        width = trial.random.choice((*WIDTHS, 4, 8))
        offset = trial.random.choice(ends) + trial.random.randint(-width, 1)
        chosen.append((min(offset, cls.__layout__.size), width))
    trial.run(chosen)


def _check_fields(cls: type[Register]) -> None:
    """What the device reads and writes: a field holds what fits it and touches no bit beside it."""
    layout = cls.__layout__
    everything = (1 << layout.width) - 1
    assert int(cls.make()) == layout.reset, (
        f"{cls.__name__}.make() is {int(cls.make()):#x}, not its reset value"
    )
    for field in layout.fields:
        span = field.hi - field.lo + 1
        values = {0, 1, (1 << span) - 1, 1 << (span - 1), *(1 << n for n in range(span))}
        for value in values:
            for background in (0, everything):
                register = cls(background)
                setattr(register, field.name, value)
                got = int(getattr(register, field.name))
                assert got == value, f"{field.label}: holds {got:#x} after {value:#x} was assigned"
                moved = int(register) ^ background
                beside = {n for n in range(layout.width) if moved >> n & 1} - set(
                    range(field.lo, field.hi + 1)
                )
                assert not beside, f"{field.label}: assigning {value:#x} changed bits {sorted(beside)}"


def declared(package: str | ModuleType, *kinds: type) -> Iterator[type[Any]]:
    """Every subclass of `kinds` (`Register` and `Block`) that a package's modules declare, each once.

    `package` is a module or its dotted name; its submodules are imported and searched too. Classes that a
    module only imports from elsewhere are left out.
    """
    root = importlib.import_module(package) if isinstance(package, str) else package
    modules = [root]
    if hasattr(root, "__path__"):
        found = pkgutil.walk_packages(root.__path__, root.__name__ + ".")
        modules += [importlib.import_module(name) for name in sorted(one.name for one in found)]
    wanted = kinds or (Register, Block)
    for module in modules:
        for value in vars(module).values():
            if not inspect.isclass(value) or value.__module__ != module.__name__:
                continue
            if issubclass(value, wanted) and value not in wanted:
                yield value
