"""A live fabric and its store: bindings come back, what could not is said, and what happens is in the journal."""

import random
import struct
import threading
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.type3 import Type3
from softcxl.fabric.errors import StateUnwritable
from softcxl.fabric.keeper import Keeper
from softcxl.fabric.store import Store
from softcxl.spec.command.base import ReturnCode
from softcxl.switch.binding import BindingError
from softcxl.switch.physical import PhysicalSwitch
from softcxl.testing.driver import CONFIG, Driver
from tests.device.mld.test_owner import mld_dvsec
from tests.fabric.crashes import replayed

MIB = 1 << 20
UNIT = 256 * MIB


class Run:
    """One life of a fabric: switch `rack` with `pool` (four LDs), `mem0` and an empty port."""

    def __init__(
        self, folder, *, ports=("pool", "mem0", None), virtual=(("left", 3), ("right", 2)), first=None
    ):
        self.stack = ExitStack()
        self.clock = ManualClock()
        self.store = self.stack.enter_context(Store(folder))
        sizes = [UNIT, UNIT, UNIT, 0]
        self.pool = MultiLogicalDevice(
            "pool",
            volatile=4 * UNIT,
            logical_devices=sizes,
            clock=self.clock,
            state=self.store.page("pool"),
        )
        self.stack.callback(self.pool.close)
        self.mem0 = Type3("mem0", volatile=UNIT, clock=self.clock, state=self.store.page("mem0"))
        self.stack.callback(self.mem0.close)
        devices: dict[str, Any] = {"pool": self.pool.heads[0], "mem0": self.mem0}
        self.switch = PhysicalSwitch("rack", ports=len(ports), virtual=list(virtual), clock=self.clock)
        for number, name in enumerate(ports):
            if name is not None:
                self.switch.ports[number].insert(devices[name])
        self.keeper = Keeper(self.store, {"rack": self.switch})
        self.keeper.watch_pool(self.pool)
        self.problems = self.keeper.restore({"rack": first or {}})

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stack.close()

    def bound(self):
        return {
            f"{virtual.name}.{vppb.number}": (vppb.port.number, vppb.ld)
            for virtual in self.switch.virtual.values()
            for vppb in virtual.vppbs
            if vppb.port is not None
        }

    def kinds(self, since=1):
        return [entry.kind for entry in self.store.journal.since(since)]


def test_bindings_come_back(tmp_path):
    with Run(tmp_path, first={"left": [(0, 0)]}) as run:
        assert run.bound() == {"left.0": (0, 0)}
        run.switch.bind(0, 1, 0, 1)
        run.switch.bind(1, 0, 1)
        run.switch.bind(1, 1, 2)
        run.switch.unbind(0, 0)
        after = run.bound()
        assert after == {"left.1": (0, 1), "right.0": (1, None), "right.1": (2, None)}
        assert run.kinds() == [
            *["binding-begun", "binding-made"] * 4,
            "unbinding-begun",
            "unbinding-made",
        ]
    for _ in range(2):
        with Run(tmp_path, first={"left": [(0, 0)]}) as run:
            assert run.problems == []
            assert run.bound() == after
            assert run.pool.logical[1].holder == "rack.left.1"
            assert run.kinds(run.store.journal.last - 1) == ["started"]


def test_what_could_not_be_restored_is_said_and_the_rest_is_there(tmp_path, caplog):
    with Run(tmp_path) as run:
        for vppb in range(3):
            run.switch.bind(0, vppb, 0, vppb)
        run.switch.bind(1, 0, 1)
        run.switch.bind(1, 1, 2)
    with Run(tmp_path, ports=("pool", None), virtual=[("left", 2), ("other", 2)]) as run:
        assert run.problems == [
            "rack.left.2 to pool.2 cannot be restored: left has no vPPB 2; there are 2, from 0",
            "rack.right.0 to mem0 cannot be restored: rack has no virtual switch right",
            "rack.right.1 to port 2 cannot be restored: rack has no virtual switch right",
        ]
        assert [one.message for one in caplog.records] == run.problems
        assert run.bound() == {"left.0": (0, 0), "left.1": (0, 1)}
        assert run.kinds(run.store.journal.last - 3) == ["binding-not-restored"] * 3
    caplog.clear()
    with Run(tmp_path, ports=("mem0",)) as run:
        assert run.problems == [
            *(f"rack.left.{n} to pool.{n} cannot be restored: port 0 has mem0 in it now" for n in range(3)),
            "rack.right.0 to mem0 cannot be restored: rack has no downstream port 1",
            "rack.right.1 to port 2 cannot be restored: rack has no downstream port 2",
        ]
        assert run.bound() == {}
    with Run(tmp_path) as run:  # all is as it was: it is found again
        assert run.problems == []
        assert len(run.bound()) == 5


def test_what_was_bound_otherwise_meanwhile_is_not_restored(tmp_path):
    with Run(tmp_path) as run:
        run.switch.bind(0, 2, 0, 2)
    with Run(tmp_path, virtual=[("left", 2), ("right", 2)]) as run:
        assert len(run.problems) == 1
        run.switch.bind(1, 0, 0, 2)
    with Run(tmp_path) as run:
        assert run.problems == []
        assert run.bound() == {"right.0": (0, 2)}


def test_a_switch_that_is_gone(tmp_path):
    with Run(tmp_path) as run:
        run.switch.bind(0, 2, 0, 2)
    with Store(tmp_path) as store:
        assert Keeper(store, {}).restore({}) == [
            "rack.left.2 to pool.2 cannot be restored: there is no switch rack"
        ]


def test_what_was_begun_is_undone(tmp_path):
    with Run(tmp_path) as run:
        run.switch.bind(0, 0, 0, 0)
        bound = run.bound()
        place = run.store.bindings()[0]
        run.store.begin_undoing(place)
        run.store.begin(type(place)(type(place.place)("rack", "right", 0), 0, "pool.1", 1))
    with Run(tmp_path) as run:
        assert run.problems == []
        assert run.bound() == bound
        assert run.kinds(run.store.journal.last - 2) == ["unbinding-undone", "binding-undone"]


def test_a_new_virtual_switch_of_a_known_switch(tmp_path):
    with Run(tmp_path, virtual=[("left", 1)], first={"left": [(0, 0)]}) as run:
        run.switch.unbind(0, 0)
        run.switch.bind(0, 0, 0, 1)
    first = {"left": [(0, 0)], "right": [(0, 2), (0, 1)]}
    with Run(tmp_path, virtual=[("left", 1), ("right", 2)], first=first) as run:
        assert run.bound() == {"left.0": (0, 1), "right.0": (0, 2)}
        assert run.problems == [
            "rack.right.1 cannot be bound at first: rack port 0 is bound already: <vPPB left.0 BOUND_LD 0.1>"
        ]


@pytest.mark.parametrize("write", [1, 2])
def test_a_full_disk_refuses_a_binding_and_leaves_nothing(tmp_path, write, monkeypatch):
    """At the first write, which is ahead, and at the second, when it was made."""
    with Run(tmp_path) as run:
        run.switch.bind(0, 0, 0, 0)
        before = run.bound()
        left = write

        def add(*given, **more):
            nonlocal left
            left -= 1
            if left <= 0:
                raise StateUnwritable(28, "no room is left on the disk", "fabric.db")
            return real(*given, **more)

        real = run.store.journal.add
        monkeypatch.setattr(run.store.journal, "add", add)
        with pytest.raises(BindingError) as refused:
            run.switch.bind(0, 1, 0, 1)
        assert refused.value.code is ReturnCode.INTERNAL_ERROR
        assert run.bound() == before
        left = write
        if write == 1:
            with pytest.raises(BindingError, match="could not be written down"):
                run.switch.unbind(0, 0)
        else:
            assert run.switch.unbind(0, 0).code is ReturnCode.INTERNAL_ERROR
        assert run.bound() == before
        assert run.pool.logical[0].holder == "rack.left.0"
        monkeypatch.undo()
    with Run(tmp_path) as run:
        assert run.bound() == before
        run.switch.bind(0, 1, 0, 1)
        run.switch.unbind(0, 0)
        assert run.bound() == {"left.1": (0, 1)}


def test_what_is_done_to_ports_and_logical_devices_is_in_the_journal():
    with Run(None) as run:
        port = run.switch.ports[0]
        port.assert_perst()
        port.deassert_perst()
        port.reset_ppb()
        device = run.switch.ports[1].remove()
        run.switch.ports[2].insert(device)
        run.pool.allocate({3: UNIT, 2: 0})
        owned = run.pool.pool.fm_owned
        owned.write(CONFIG, mld_dvsec(owned) + 0x0C, b"\x02\0")  # the LD-ID Hot Reset Vector
        run.pool.power_cycle()
        found = [(one.kind, one.subject, one.detail) for one in run.store.journal.since(1)]
    assert found == [
        ("perst-asserted", "rack.0", {"device": "pool"}),
        ("perst-deasserted", "rack.0", {"device": "pool"}),
        ("power-cycled", "pool", {}),
        ("reset", "rack.0", {"device": "pool"}),
        ("removed", "rack.1", {"device": "mem0"}),
        ("inserted", "rack.2", {"device": "mem0"}),
        ("ld-freed", "pool.2", {"volatile": 0, "persistent": 0}),
        ("ld-allocated", "pool.3", {"volatile": UNIT, "persistent": 0}),
        ("ld-reset", "pool.1", {}),
        ("power-cycled", "pool", {}),
    ]


def test_allocations_come_back(tmp_path):
    with Run(tmp_path) as run:
        run.pool.allocate({3: UNIT, 2: 0})
    with Run(tmp_path) as run:
        assert sorted(run.pool.logical) == [0, 1, 3]


def test_what_happens_to_extents_is_in_the_journal():
    device = Type3("mem0", dynamic=[DynamicRegion(length=UNIT)], clock=ManualClock())
    with Store() as store:
        Keeper(store, {}).watch_extents("mem0", device.dynamic)
        device.dynamic.add(length=4 * MIB, tag=UUID(int=7))
        taken = struct.pack("<I4xQQ8x", 1, 0, 4 * MIB)
        assert Driver(device).send(0x4802, taken)[0] == 0
        assert Driver(device).send(0x4803, taken)[0] == 0
        found = list(store.journal.since(1))
    device.close()
    assert [(one.kind, one.subject) for one in found] == [
        (f"extents-{what}", "mem0") for what in ("offered", "accepted", "released")
    ]
    assert found[0].detail == {
        "host": 0,
        "extents": [{"start": 0, "length": 4 * MIB, "tag": f"{7:032x}"}],
        "count": 1,
    }


def test_a_journal_that_cannot_be_written_stops_no_device(monkeypatch, caplog):
    with Run(None) as run:

        def add(*given, **more):
            raise StateUnwritable(28, "no room is left on the disk", "fabric.db")

        monkeypatch.setattr(run.store.journal, "add", add)
        run.switch.ports[1].remove()
        monkeypatch.undo()
        assert run.switch.ports[1].device is None
    assert caplog.messages == [
        "removed of rack.1 is not in the journal: fabric.db: no room is left on the disk"
    ]


def test_managers_at_once_are_written_down_in_the_order_in_which_it_happened(tmp_path):
    """Each from a thread of its own, on the same vPPBs and logical devices."""
    with Run(tmp_path) as run:

        def work(seed):
            draw = random.Random(seed)
            for _ in range(200):
                vcs = draw.randrange(2)
                vppb = draw.randrange(3 - vcs)
                try:
                    if draw.random() < 0.6:
                        run.switch.bind(vcs, vppb, *draw.choice([(0, 0), (0, 1), (0, 2), (1, None)]))
                    else:
                        run.switch.unbind(vcs, vppb)
                except BindingError:
                    pass

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        bound, entries = run.bound(), list(run.store.journal.since(0))
        kept = {str(one.place): one.target for one in run.store.bindings()}
        assert {place.removeprefix("rack.") for place in kept} == set(bound)
    assert replayed(entries) == kept
    assert sum(entry.kind == "binding-made" for entry in entries) > 5
    with Run(tmp_path) as run:
        assert run.bound() == bound
