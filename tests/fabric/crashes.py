"""A fabric manager at work on a fabric with a state folder, killed again and again. A program of its own, so that it
has one thread when it forks:

    python crashes.py FOLDER every         killed ahead of each statement that the database gets, in turn
    python crashes.py FOLDER random SEED COUNT
    python crashes.py FOLDER refused       each transaction fails in turn, as on a full disk; nobody is killed

Each time the fabric is made anew, and must have what was acknowledged: all of it, and of the operation under way all or
nothing. The last line that it prints says how often that was.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.selection import Selection
from softcxl.device.type3 import Type3
from softcxl.fabric import database
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import BuildError, StateUnwritable
from softcxl.fabric.journal import Entry, read
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.switch.binding import BindingError
from softcxl.testing.driver import Driver

MIB = 1 << 20
UNIT = 256 * MIB
BLOCK = 2 * MIB
TOPOLOGY = """
state: state
devices:
  pool:
    type: mld
    volatile: 1GiB
    persistent: 1GiB
    granularity: 256MiB
    on_unbind: keep
    logical_devices: [256MiB, {volatile: 256MiB, persistent: 256MiB}, 256MiB, 0]
    dynamic: [{length: 256MiB, flags: [non-volatile]}]
  spare: {volatile: 256MiB}
  far:
    persistent: 256MiB
    dynamic: [{length: 256MiB, flags: [non-volatile]}, {length: 256MiB}]
switches:
  rack: {ports: [pool, spare, null], virtual: {left: {ports: [pool.0, null, null]}, right: {ports: [null, null]}}}
"""
KEPT, FORGETS = UNIT, 2 * UNIT
"""Where the regions of dynamic capacity begin, after the persistent capacity."""
SHARED = 8 * UNIT
"""Where the region that logical devices have in common begins, after all that they could have."""

Place = tuple[int, int]


@dataclass
class Model:
    """What must be there: bindings by (virtual switch, vPPB), allocations, extents in the region that lasts, bytes."""

    bindings: dict[Place, tuple[int, int | None]] = field(default_factory=lambda: {(0, 0): (0, 0)})
    allocations: list[tuple[int, int]] = field(default_factory=lambda: [(1, 0), (1, 1), (1, 0), (0, 0)])
    extents: list[tuple[int, int]] = field(default_factory=list)
    passphrase: bool = False
    written: dict[int, bytes] = field(default_factory=dict)
    owned: dict[int, int] = field(default_factory=dict)
    """The LD that has an extent, by its address in the region of all."""

    def plain(self) -> Any:
        return (
            self.passphrase,  # first: a device does not lock before its power goes
            sorted(self.bindings.items()),
            self.allocations,
            sorted(self.extents),
            sorted(self.written.items()),
            sorted(self.owned.items()),
        )

    def copy(self) -> Model:
        return deepcopy(self)

    def apply(self, operation: list[Any]) -> None:
        """What an operation does that succeeds."""
        match operation:
            case ["bind", vcs, vppb, port, ld]:
                self.bindings[vcs, vppb] = (port, ld)
            case ["unbind", vcs, vppb, _]:
                del self.bindings[vcs, vppb]
            case ["allocate", ld, volatile, persistent]:
                if self.allocations[ld] != (volatile, persistent):
                    self.owned = {dpa: owner for dpa, owner in self.owned.items() if owner != ld}
                self.allocations[ld] = (volatile, persistent)
            case ["give", ld, dpa]:
                self.owned[dpa] = ld
            case ["take", ld, dpa]:
                self.owned.pop(dpa, None)  # an offer may be taken back, too
            case ["accept", dpa] if dpa < FORGETS:
                self.extents.append((dpa, BLOCK))
            case ["release", dpa] if dpa < FORGETS:
                self.extents.remove((dpa, BLOCK))
            case ["passphrase"]:
                self.passphrase = True
            case ["write", at, value]:
                self.written[at] = bytes([value]) * 16
            case _:
                pass


def load(folder: Path) -> Fabric:
    return Fabric.load(folder / "fabric.yaml", clock=ManualClock())


def do(fabric: Fabric, operation: list[Any]) -> bool:
    """Whether it was done; a refusal is an answer too."""
    switch, far = fabric.switches["rack"], fabric.devices["far"]
    try:
        match operation:
            case ["bind", vcs, vppb, port, ld]:
                switch.bind(vcs, vppb, port, ld)
            case ["unbind", vcs, vppb, option]:
                return not switch.unbind(vcs, vppb, UnbindOption(option)).code
            case ["allocate", ld, volatile, persistent]:
                fabric.mlds["pool"].allocate({ld: (volatile * UNIT, persistent * UNIT)})
            case ["accept", dpa]:
                far.dynamic.add(
                    region=int(dpa >= FORGETS), selection=Selection.PRESCRIPTIVE, extents=[(dpa, BLOCK)]
                )
                return _command(far, 0x4802, dpa)
            case ["release", dpa]:
                return _command(far, 0x4803, dpa)
            case ["give", ld, dpa]:
                pool = fabric.mlds["pool"]
                assert pool.dynamic is not None
                pool.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=[(dpa, BLOCK)], host=ld)
                return _command(pool.logical[ld], 0x4802, dpa)
            case ["take", ld, dpa]:
                dynamic = fabric.mlds["pool"].dynamic
                assert dynamic is not None
                dynamic.release(extents=[(dpa, BLOCK)], host=ld, forced=True)
            case ["passphrase"]:
                return not Driver(far).send(0x4501, b"\1".ljust(64, b"\0") + b"secret".ljust(32))[0]
            case ["write", at, value]:
                far.space.write(at, bytes([value]) * 16)
    except (BindingError, ValueError, StateUnwritable):
        return False
    return True


def _command(device: Type3, opcode: int, dpa: int) -> bool:
    payload = struct.pack("<I4xQQ8x", 1, dpa, BLOCK)
    return not Driver(device).send(opcode, payload)[0]


def choose(draw: random.Random) -> list[Any]:
    """Something that a fabric manager or a host may do, sensible or not."""
    vcs, ld = draw.randrange(2), draw.randrange(4)
    vppb = draw.randrange(3 - vcs)
    target: list[Any] = draw.choice([[0, ld], [0, ld], [0, ld], [1, None], [2, None]])
    dpa = draw.choice([KEPT, FORGETS]) + BLOCK * draw.randrange(4)
    return draw.choice(
        [
            ["bind", vcs, vppb, *target],
            ["bind", vcs, vppb, *target],
            ["unbind", vcs, vppb, draw.choice([1, 2])],
            ["allocate", ld, draw.randrange(3), draw.randrange(2)],
            ["accept", dpa],
            ["release", dpa],
            ["give", ld, SHARED + BLOCK * draw.randrange(4)],
            ["take", ld, SHARED + BLOCK * draw.randrange(4)],
            ["write", draw.randrange(64) * 4096, draw.randrange(1, 256)],
        ]
    )


SCRIPT: list[list[Any]] = [
    ["bind", 0, 1, 0, 1],
    ["bind", 1, 0, 1, None],
    ["allocate", 3, 1, 1],
    ["give", 3, SHARED],
    ["give", 1, SHARED + BLOCK],
    ["unbind", 0, 0, 1],
    ["bind", 1, 1, 0, 0],
    ["accept", KEPT],
    ["accept", FORGETS],
    ["unbind", 1, 0, 2],
    ["allocate", 3, 0, 0],
    ["give", 0, SHARED],
    ["take", 1, SHARED + BLOCK],
    ["release", KEPT],
    ["passphrase"],
]
"""Each kind of write, in an order in which all succeed."""


# -- the one that is killed ------------------------------------------------------------------------------------------


def work(folder: Path, operations: Iterator[list[Any]], say: int, prepare: Callable[[], None]) -> None:
    """Do them, and say of each that it begins and how it ended."""
    prepare()
    try:
        fabric = load(folder)
    except (BuildError, StateUnwritable):
        return
    with fabric:
        os.write(say, b'["ready"]\n')
        for operation in operations:
            os.write(say, json.dumps(["begin", operation]).encode() + b"\n")
            done = do(fabric, operation)
            os.write(say, json.dumps(["end", done]).encode() + b"\n")
        os.write(say, json.dumps(["over", repr(state(fabric).plain()[1:]), _refused]).encode() + b"\n")


def _die_at(number: int) -> None:
    """Be killed before the database runs that statement, counted from the opening of the file."""
    left = number
    connect: Callable[[str], database.Connection] = database._connect

    def statement(text: str) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def traced(name: str) -> database.Connection:
        connection = connect(name)
        connection.set_trace_callback(statement)
        return connection

    database._connect = traced


_refused = False


def _refuse(number: int) -> None:
    """Have the transaction of that number fail, when all of it has been written."""
    left = number
    real = database.Database.transaction

    @contextmanager
    def transaction(self: database.Database, *, durable: bool = True) -> Iterator[database.Connection]:
        global _refused
        nonlocal left
        outermost = not self.connection.in_transaction
        with real(self, durable=durable) as connection:
            yield connection
            left -= outermost
            if outermost and not left:
                _refused = True
                raise StateUnwritable(28, "no room is left on the disk", "fabric.db")

    setattr(database.Database, "transaction", transaction)  # noqa: B010  mypy would not have it assigned


# -- the one that looks ----------------------------------------------------------------------------------------------


def forked(
    folder: Path, operations: Iterator[list[Any]], prepare: Callable[[], None], lines: int = 0
) -> list[list[Any]]:
    """What a process said before it was killed: by itself, or from here when it has said so many lines."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(ours)
            work(folder, operations, theirs, prepare)
            status = 0
        except BaseException:  # noqa: BLE001  whatever it is, it must not go on as the parent does
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    said = []
    with os.fdopen(ours, encoding="utf-8") as pipe:
        for line in pipe:
            said.append(json.loads(line))
            if len(said) == lines:
                os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"ended with {status:#x} after {said[-3:]}"
    return said


def after(model: Model, said: list[list[Any]]) -> tuple[Model, Model]:
    """What must be there at least, and what may be there at most."""
    under_way: list[Any] | None = None
    for line in said:
        if line[0] == "begin":
            under_way = line[1]
        elif line[0] == "end":
            if line[1] and under_way is not None:
                model.apply(under_way)
            under_way = None
    other = model.copy()
    if under_way is not None:
        try:
            other.apply(under_way)
        except (KeyError, ValueError):
            pass  # it would have been refused
    return model, other


def state(fabric: Fabric) -> Model:
    """What is there; and what can never be is not."""
    switch, pool, far = fabric.switches["rack"], fabric.mlds["pool"], fabric.devices["far"]
    vppbs = [one for virtual in switch.virtual.values() for one in virtual.vppbs]
    assert all(one.operation is None for one in vppbs)
    bound = {
        (one.virtual.number, one.number): (one.port.number, one.ld) for one in vppbs if one.port is not None
    }
    assert len(set(bound.values())) == len(bound), "bound twice"
    for number in range(4):
        device, holders = pool.logical.get(number), [at for at, to in bound.items() if to == (0, number)]
        assert (device is not None and device.holder is not None) == bool(holders)
    assert [one.status for one in fabric.store.bindings()] == ["bound"] * len(bound)
    each = [(one.volatile // UNIT, one.persistent // UNIT) for one in pool.allocations.each]
    for number, one in pool.logical.items():
        assert (one.capacity.volatile // UNIT, one.capacity.persistent // UNIT) == each[number]
    assert not any(any(each[number]) for number in {*range(4)} - {*pool.logical})
    extents = [(one.start, one.length) for one in far.dynamic.extents]
    assert pool.dynamic is not None
    owned: dict[int, int] = {}
    for ld, host in pool.dynamic.hosts.items():
        for extent in host.accepted:
            assert extent.start not in owned, "an extent has two owners"
            assert extent.length == BLOCK
            owned[extent.start] = ld
    written = {at: found for at in range(0, 64 * 4096, 4096) if any(found := far.space.read(at, 16))}
    return Model(
        bound, each, [one for one in extents if one[0] < FORGETS], far.security.locked, written, owned
    )


def look(folder: Path) -> Model:
    """What is there when the fabric is made anew."""
    with load(folder) as fabric:
        model = state(fabric)
        lasting = [one.start < FORGETS for one in fabric.devices["far"].dynamic.extents]
        assert all(lasting), "a volatile extent has survived"
        kept = {str(one.place): one.target for one in fabric.store.bindings()}
    entries = read(folder / "state")
    assert [one.seq for one in entries] == list(range(1, len(entries) + 1)), "a gap in the journal"
    assert entries[-1].kind == "stopped"
    assert replayed(entries) == kept, "the journal tells of other bindings"
    return model


def replayed(entries: list[Entry]) -> dict[str, str]:
    """What is bound to what, as the journal has it; nothing is ever bound twice."""
    bound: dict[str, str] = {}
    for one in entries:
        target = one.detail.get("target", "")
        if one.kind == "binding-made":
            assert one.subject not in bound, one
            assert target not in bound.values(), one
            bound[one.subject] = target
        elif one.kind == "unbinding-made":
            assert bound.pop(one.subject) == target, one
    return bound


def fits(found: Model, least: Model, most: Model) -> bool:
    return found.plain() in (least.plain(), most.plain())


def begin(folder: Path) -> None:
    folder.mkdir()
    (folder / "fabric.yaml").write_text(TOPOLOGY)


def every(root: Path) -> int:
    """Killed ahead of each statement. Returns how often."""
    number = 0
    while True:
        number += 1
        folder = root / f"at{number}"
        begin(folder)
        said = forked(folder, iter(SCRIPT), partial(_die_at, number))
        if said and said[-1][0] == "over":
            assert [line for line in said if line[0] == "end"] == [["end", True]] * len(SCRIPT), said
            return number - 1
        least, most = after(Model(), said)
        found = look(folder)
        assert fits(found, least, most), (
            f"killed at {number} after {said[-2:]}: {found}, not {least} or {most}"
        )


def at_random(root: Path, seed: int, count: int) -> int:
    """Killed from outside, `count` times, at whatever instant it has come to."""
    folder, draw, model = root / "random", random.Random(seed), Model()
    begin(folder)
    for number in range(count):
        operations = iter([choose(draw) for _ in range(200)])
        said = forked(folder, operations, lambda: None, draw.randrange(1, 60))
        least, most = after(model, said)
        model = look(folder)
        assert fits(model, least, most), f"{number}: after {said[-2:]}: {model}, not {least} or {most}"
    return count


def refused(root: Path) -> int:
    """Each transaction fails. What was refused has not happened, live as in the file. Returns how often."""
    number = 0
    while True:
        number += 1
        folder = root / f"refused{number}"
        begin(folder)
        said = forked(folder, iter(SCRIPT), partial(_refuse, number))
        least, _ = after(Model(), said)
        if said:
            live = said[-1][1]
            assert live == repr(least.plain()[1:]), f"refused at {number}: {live}, not {least}"
            if not said[-1][2]:
                return number - 1
        found = look(folder)
        assert fits(found, least, least), f"refused at {number}: {found}, not {least}"


if __name__ == "__main__":
    root, how, *more = sys.argv[1:]
    ways: dict[str, Callable[..., int]] = {"every": every, "random": at_random, "refused": refused}
    print(ways[how](Path(root), *map(int, more)))
