"""Anything that owner, host and time may do, against a model that knows blocks only.

The model keeps, for each block, who has it: nobody, an offer, or the host. The device keeps extents. After every step
they must agree: no block is lost or given twice, the host's list is the owner's, and its generation has changed
exactly if the list has.
"""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.errors import DynamicCapacityError
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from softcxl.device.type3 import Type3
from softcxl.wire import Reset
from tests.device.dynamic.dc_host import MIB, DcHost

BLOCKS, BLOCK = 24, 2 * MIB
SECONDS = 10

blocks = st.integers(0, BLOCKS - 1)
runs = st.tuples(blocks, st.integers(1, 6))  # first block, how many
lists = st.lists(runs, min_size=1, max_size=4)


def ranges(listed):
    return [(first * BLOCK, count * BLOCK) for first, count in listed]


def members(listed):
    return [block for first, count in listed for block in range(first, first + count)]


class Dynamic(RuleBasedStateMachine):
    @initialize(depth=st.integers(1, 6), sanitize=st.booleans(), lasting=st.booleans())
    def begin(self, depth, sanitize, lasting):
        self.clock = ManualClock()
        self.device = Type3(
            "mem0",
            dynamic=[
                DynamicRegion(length=BLOCKS * BLOCK, sanitize_on_release=sanitize, non_volatile=lasting)
            ],
            event_log_depth=depth,
            clock=self.clock,
        )
        self.host = DcHost(self.device)
        self.sanitize, self.lasting = sanitize, lasting
        self.accepted = set()
        self.queue = []  # [blocks, alive], oldest first
        self.marked = set()  # blocks that hold a mark
        self.before = None
        self.asked = 0

    def teardown(self):
        if hasattr(self, "device"):
            self.device.close()

    def offered(self):
        return {block for group, alive in self.queue if alive for block in group}

    def free(self):
        return set(range(BLOCKS)) - self.accepted - self.offered()

    def leave(self, gone):
        self.accepted -= gone
        if self.sanitize:
            self.marked -= gone

    # -- owner

    @rule(count=st.integers(0, 8), contiguous=st.booleans())
    def add(self, count, contiguous):
        free = sorted(self.free())
        selection = Selection.CONTIGUOUS if contiguous else Selection.FREE
        if contiguous:
            places = [at for at in free if set(range(at, at + count)) <= set(free)]
            expected = list(range(places[0], places[0] + count)) if places else None
        else:
            expected = free[:count] if len(free) >= count else None
        try:
            offer = self.device.dynamic.add(length=count * BLOCK, selection=selection, timeout=SECONDS)
        except DynamicCapacityError:
            assert count == 0 or expected is None
            return
        found = members([(one.start // BLOCK, one.length // BLOCK) for one in offer.extents])
        assert found == expected
        self.queue.append([set(found), True])

    @rule(listed=lists)
    def prescribe(self, listed):
        wanted = members(listed)
        valid = len(wanted) == len(set(wanted)) and set(wanted) <= self.free()
        try:
            self.device.dynamic.add(selection=Selection.PRESCRIPTIVE, extents=ranges(listed), timeout=SECONDS)
        except DynamicCapacityError:
            assert not valid
            return
        assert valid
        self.queue.append([set(wanted), True])

    @rule(listed=lists)
    def ask(self, listed):
        wanted = members(listed)
        valid = len(wanted) == len(set(wanted)) and set(wanted) <= self.accepted
        try:
            self.device.dynamic.release(extents=ranges(listed))
        except DynamicCapacityError:
            assert not valid
            return
        assert valid

    @rule(listed=lists)
    def force(self, listed):
        wanted = members(listed)
        valid = len(wanted) == len(set(wanted)) and set(wanted) <= self.accepted | self.offered()
        try:
            self.device.dynamic.release(extents=ranges(listed), forced=True)
        except DynamicCapacityError:
            assert not valid
            return
        assert valid
        self.leave(set(wanted) & self.accepted)
        for entry in self.queue:
            if entry[0] & set(wanted):
                entry[1] = False

    # -- host

    @precondition(lambda self: any(alive for _, alive in self.queue))
    @rule(data=st.data())
    def accept(self, data):
        """Some blocks of the offer whose turn it is, one extent each, in any order and in parts."""
        index = next(at for at, (_, alive) in enumerate(self.queue) if alive)
        group = self.queue[index][0]
        taken = data.draw(st.lists(st.sampled_from(sorted(group)), unique=True, min_size=1))
        cut = data.draw(st.integers(0, len(taken)))
        if 0 < cut < len(taken):
            assert self.host.accept(*ranges([(at, 1) for at in taken[:cut]]), more=True) == 0
            taken_now = taken[cut:]
        else:
            taken_now = taken
        assert self.host.accept(*ranges([(at, 1) for at in taken_now])) == 0
        self.accepted |= set(taken)
        del self.queue[: index + 1]

    @precondition(lambda self: all(alive for _, alive in self.queue))
    @rule(listed=lists)
    def accept_anything(self, listed):
        wanted = members(listed)
        group = self.queue[0][0] if self.queue else set()
        valid = len(wanted) == len(set(wanted)) and set(wanted) <= group
        code = self.host.accept(*ranges(listed))
        assert (code == 0) == valid
        if valid:
            self.accepted |= set(wanted)
            del self.queue[0]

    @precondition(lambda self: all(alive for _, alive in self.queue))
    @rule()
    def reject(self):
        assert (self.host.accept() == 0) == bool(self.queue)
        del self.queue[:1]

    @rule(listed=lists)
    def release(self, listed):
        wanted = members(listed)
        valid = len(wanted) == len(set(wanted)) and set(wanted) <= self.accepted
        assert (self.host.release(*ranges(listed)) == 0) == valid
        if valid:
            self.leave(set(wanted))

    @rule()
    def read_log(self):
        self.host.events()

    @rule(block=blocks)
    def write(self, block):
        if block in self.accepted:
            self.device.space.write(block * BLOCK, b"mark")
            self.marked.add(block)

    # -- world

    @rule()
    def wait(self):
        """Long enough for the offer whose turn it is, and not for the next."""
        head = next((entry for entry in self.queue if entry[1]), None)
        self.clock.advance(SECONDS)
        if head is not None:
            head[1] = False

    @rule(kind=st.sampled_from([Reset.FLR, Reset.HOT]))
    def reset(self, kind):
        self.device.reset(kind)

    @rule()
    def lose_power(self):
        self.device.reset(Reset.COLD)
        self.queue.clear()
        if not self.lasting:
            self.accepted.clear()
            self.marked.clear()

    # -- what always holds

    @invariant()
    def agree(self):
        if not hasattr(self, "device"):
            return
        _, total, generation, found = self.host.extent_list(0xFFFF)
        assert total == len(found)
        assert [one[:2] for one in found] == [(one.start, one.length) for one in self.device.dynamic.extents]
        held = [at for one in found for at in range(one.start // BLOCK, (one.start + one.length) // BLOCK)]
        assert held == sorted(set(held))
        assert set(held) == self.accepted
        pending = self.device.dynamic.pending
        offered = [at for one in pending for at in range(one.start // BLOCK, one.end // BLOCK)]
        assert sorted(offered) == sorted(self.offered())
        free = {at for start, end in self.device.dynamic.free() for at in range(start // BLOCK, end // BLOCK)}
        assert free == self.free()
        if self.before is not None:
            changed = found != self.before[1]
            assert (generation != self.before[0]) == changed
        self.before = generation, found
        for block in range(BLOCKS):
            assert self.device.dynamic.hosts[0].covers(block * BLOCK, BLOCK) == (block in self.accepted)
        for block in self.marked:
            assert self.device.space.read(block * BLOCK, 4) == b"mark"
        for block in self.free() - self.marked:
            assert self.device.space.read(block * BLOCK, 4) == bytes(4)


TestDynamic = Dynamic.TestCase
TestDynamic.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
