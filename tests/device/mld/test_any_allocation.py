"""Whatever a fabric manager asks for, in whatever order: never more than there is, nobody's memory is another's, and
what is refused changes nothing."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from softcxl.device.clock import ManualClock
from softcxl.device.mld.allocation import Allocation, Allocations
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.mld.errors import AllocationUneven, CapacityExceeded, NoSuchLd
from softcxl.wire import Reset
from tests.device.mld.conftest import MIB, Door

UNIT = 256 * MIB
LDS, VOLATILE, PERSISTENT = 4, 5, 3
SUCCESS, INPUT = 0, 2


@given(
    before=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=16),
    changes=st.dictionaries(
        st.integers(-1, 17), st.tuples(st.integers(-1, 8), st.integers(0, 4)), max_size=6
    ),
    volatile=st.integers(0, 20),
    persistent=st.integers(0, 20),
    uneven=st.sampled_from((0, 0, 1, UNIT // 2)),
)
def test_accounting(before, changes, volatile, persistent, uneven):
    """The sums worked out here, by units."""
    each = tuple(Allocation(a * UNIT, b * UNIT) for a, b in before)
    if sum(one for one, _ in before) > volatile or sum(one for _, one in before) > persistent:
        with pytest.raises(CapacityExceeded):
            Allocations(volatile * UNIT, persistent * UNIT, UNIT, each)
        return
    held = Allocations(volatile * UNIT, persistent * UNIT, UNIT, each)
    wanted = {ld: Allocation(a * UNIT + uneven, b * UNIT) for ld, (a, b) in changes.items()}
    after = dict(enumerate(before)) | changes
    if any(not 0 <= ld < len(before) for ld in changes):
        error: type[Exception] | None = NoSuchLd
    elif changes and (uneven or any(a < 0 for a, _ in changes.values())):
        error = AllocationUneven
    elif sum(a for a, _ in after.values()) > volatile or sum(b for _, b in after.values()) > persistent:
        error = CapacityExceeded
    else:
        error = None
    if error is not None:
        with pytest.raises(error):
            held.with_(wanted)
        return
    then = held.with_(wanted)
    assert then.free == (
        (volatile - sum(a for a, _ in after.values())) * UNIT,
        (persistent - sum(b for _, b in after.values())) * UNIT,
    )
    assert set(held.changed(then)) == {ld for ld, pair in changes.items() if pair != before[ld]}
    assert held.read(then.plain()) == then


class Pool(RuleBasedStateMachine):
    """A fabric manager, hosts that come and go, and power that fails. `model` is what each has, in units; `secrets` are
    what was written into each, which nobody else may find."""

    @initialize()
    def begin(self) -> None:
        self.state: dict[str, dict[str, object]] = {}
        self.device = self.made()
        self.door = Door(self.device.management)
        self.model = [(1, 0), (2, 1), (0, 0), (0, 0)]
        self.bound: set[int] = set()
        self.secrets: dict[int, int] = {}
        self.number = 0

    def made(self) -> MultiLogicalDevice:
        return MultiLogicalDevice(
            "pool",
            volatile=VOLATILE * UNIT,
            persistent=PERSISTENT * UNIT,
            logical_devices=[UNIT, (2 * UNIT, UNIT), 0, 0],
            clock=ManualClock(),
            label_storage=4096,
            on_unbind="keep",
        )

    def teardown(self) -> None:
        if hasattr(self, "device"):
            self.device.close()

    @rule(
        start=st.integers(0, LDS),
        wanted=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=0, max_size=LDS),
    )
    def allocate(self, start: int, wanted: list[tuple[int, int]]) -> None:
        body = b"".join(struct.pack("<QQ", *one) for one in wanted)
        code, payload = self.door.send(0x5402, struct.pack("<BBxx", len(wanted), start) + body)
        after = dict(enumerate(self.model)) | {start + at: pair for at, pair in enumerate(wanted)}
        changed = [ld for ld in after if ld >= LDS or after[ld] != self.model[ld]]
        possible = (
            bool(wanted)
            and start + len(wanted) <= LDS
            and sum(a for a, _ in after.values()) <= VOLATILE
            and sum(b for _, b in after.values()) <= PERSISTENT
            and not self.bound & set(changed)
        )
        assert code == (SUCCESS if possible else INPUT)
        if possible:
            assert payload[4:] == body
            self.model = [after[ld] for ld in range(LDS)]
            for ld in changed:
                self.secrets.pop(ld, None)

    @rule(ld=st.integers(0, LDS - 1))
    def write(self, ld: int) -> None:
        if ld in self.device.logical:
            self.number += 1
            self.secrets[ld] = self.number
            self.device.logical[ld].space.write(UNIT - 8, struct.pack("<Q", self.number))

    @rule(ld=st.integers(0, LDS - 1))
    def bind(self, ld: int) -> None:
        if ld in self.device.logical and ld not in self.bound:
            self.device.logical[ld].bind("a host")
            self.bound.add(ld)

    @precondition(lambda self: self.bound)
    @rule(data=st.data())
    def unbind(self, data: st.DataObject) -> None:
        ld = data.draw(st.sampled_from(sorted(self.bound)))
        self.device.logical[ld].unbind()
        self.bound.remove(ld)

    @rule(ld=st.integers(0, LDS - 1), kind=st.sampled_from(Reset))
    def reset(self, ld: int, kind: Reset) -> None:
        if ld in self.device.logical:
            self.device.logical[ld].reset(kind)

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        enabled = [ld for ld, pair in enumerate(self.model) if any(pair)]
        code, payload = self.door.send(0x5401, b"\0\xff")
        assert (code, payload[:4]) == (SUCCESS, bytes([LDS, 0, 0, LDS]))
        assert list(struct.iter_unpack("<QQ", payload[4:])) == self.model
        assert sorted(self.device.logical) == enabled
        media = [one.medium for one in self.device.logical.values()]
        assert len({id(one) for one in media}) == len(media)
        for ld, device in self.device.logical.items():
            assert (device.capacity.volatile, device.capacity.persistent) == tuple(
                units * UNIT for units in self.model[ld]
            )
            assert device.space.capacity == sum(self.model[ld]) * UNIT
            assert device.space.read(UNIT - 8, 8) == struct.pack("<Q", self.secrets.get(ld, 0))
            assert (device.holder is not None) == (ld in self.bound)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
