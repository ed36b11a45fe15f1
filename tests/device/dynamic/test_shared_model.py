"""Two hosts and an owner over one pool, against a model that knows who has which block.

What must always hold: a block that one host has alone no other has; a block of a tag is with those who accepted the
tag, and with no other; what nobody has, was offered or keeps by a reference is free to be given; and nothing is lost:
free blocks and taken ones are all there are. Bytes: a mark that a host stores in what it has is read by every host
that has it, and by nobody after the last one has gone, for the regions sanitize on release.
"""

from uuid import UUID

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from softcxl.device.clock import ManualClock
from softcxl.device.dynamic.errors import DynamicCapacityError
from softcxl.device.dynamic.extents import NO_TAG
from softcxl.device.dynamic.region import DynamicRegion
from softcxl.device.dynamic.selection import Selection
from softcxl.wire import Reset
from tests.device.dynamic.dc_host import MIB, DcHost
from tests.device.dynamic.pool import START, Ld, pool_of

HOSTS = (0, 5)
BLOCKS, BLOCK = 12, 2 * MIB
BASES = {0: START, 1: START + 256 * MIB}
"""Region 0 is for one host each, region 1 sharable."""
SECONDS = 10

hosts = st.sampled_from(HOSTS)
counts = st.integers(1, 4)
tags = st.integers(1, 3)


class Pool(RuleBasedStateMachine):
    @initialize(lasting=st.booleans())
    def begin(self, lasting):
        self.names = {number: UUID(int=number) for number in (1, 2, 3)}
        self.clock = ManualClock()
        regions = [
            DynamicRegion(
                length=BLOCKS * BLOCK, sharable=sharable, non_volatile=lasting, sanitize_on_release=True
            )
            for sharable in (False, True)
        ]
        self.lasting = lasting
        self.made = pool_of(regions, self.clock)
        self.pool = self.made.__enter__()
        self.devices = {
            host: Ld(f"pool.{host}", self.pool, host, volatile=256 * MIB, clock=self.clock) for host in HOSTS
        }
        self.ends = {host: DcHost(device) for host, device in self.devices.items()}
        self.has: dict[int, set[tuple[int, int]]] = {host: set() for host in HOSTS}  # (region, block)
        self.offers: dict[int, list[list]] = {
            host: [] for host in HOSTS
        }  # [blocks, tag number, alive], oldest first
        self.tagged = {}  # tag number -> blocks, of region 1
        self.kept = set()  # tag numbers with a reference
        self.marks = set()  # blocks of which the bytes are not zeros

    def teardown(self):
        if hasattr(self, "made"):
            for device in self.devices.values():
                device.close()
            self.made.__exit__(None, None, None)

    # -- the model

    def pending(self, host):
        return {block for blocks, _, alive in self.offers[host] if alive for block in blocks}

    def taken(self):
        found = {block for number in self.kept for block in self.tagged[number]}
        for host in HOSTS:
            found |= self.has[host] | self.pending(host)
        return found

    def settle(self):
        """Tags that nobody has any more are none, and blocks that nobody has are zeros."""
        taken = self.taken()
        self.tagged = {number: blocks for number, blocks in self.tagged.items() if blocks & taken}
        self.marks &= taken

    def partakes(self, host, number):
        blocks = self.tagged[number]
        return bool(blocks & (self.has[host] | self.pending(host)))

    @staticmethod
    def dpa(block):
        return BASES[block[0]] + block[1] * BLOCK

    def ranges(self, blocks):
        return [(self.dpa(one), BLOCK) for one in sorted(blocks)]

    # -- the owner

    @rule(host=hosts, count=counts)
    def add(self, host, count):
        free = [(0, at) for at in range(BLOCKS) if (0, at) not in self.taken()]
        try:
            self.pool.add(length=count * BLOCK, host=host, timeout=SECONDS)
        except DynamicCapacityError:
            assert len(free) < count
            return
        assert len(free) >= count
        self.offers[host].append([set(free[:count]), 0, True])

    @rule(host=hosts, count=counts, number=tags)
    def add_tagged(self, host, count, number):
        free = [(1, at) for at in range(BLOCKS) if (1, at) not in self.taken()]
        possible = number not in self.tagged and len(free) >= count
        try:
            self.pool.add(region=1, length=count * BLOCK, tag=self.names[number], host=host, timeout=SECONDS)
        except DynamicCapacityError:
            assert not possible
            return
        assert possible
        self.tagged[number] = set(free[:count])
        self.offers[host].append([set(free[:count]), number, True])

    @rule(host=hosts, number=tags)
    def share(self, host, number):
        possible = number in self.tagged and not self.partakes(host, number)
        try:
            self.pool.add(
                region=1, selection=Selection.SHARED, tag=self.names[number], host=host, timeout=SECONDS
            )
        except DynamicCapacityError:
            assert not possible
            return
        assert possible
        self.offers[host].append([set(self.tagged[number]), number, True])

    @rule(number=tags, count=counts)
    def all_have_it(self, number, count):
        """What it takes of the above and of `accept` until every host has a tag, where it can be."""
        self.add_tagged(HOSTS[0], count, number)
        for host in HOSTS:
            if number in self.tagged:
                self.share(host, number)
                while self.pending(host):
                    self.accept(host)

    @rule(host=hosts, number=st.integers(0, 3))
    def force(self, host, number):
        """All with a tag, or without one, accepted or offered."""
        wanted = {block for block in self.has[host] if self.tag_of(block) == number}
        ended = [one for one in self.offers[host] if one[2] and one[1] == number]
        try:
            self.pool.release(tag=self.names.get(number, NO_TAG), host=host, forced=True)
        except DynamicCapacityError:
            assert not wanted
            assert not ended
            return
        assert wanted or ended
        self.has[host] -= wanted
        for one in ended:
            one[2] = False
        self.settle()

    def tag_of(self, block):
        return next((number for number, blocks in self.tagged.items() if block in blocks), 0)

    @rule(number=tags)
    def refer(self, number):
        try:
            self.pool.refer(self.names[number])
        except DynamicCapacityError:
            assert number not in self.tagged
            return
        assert number in self.tagged
        self.kept.add(number)

    @rule(number=tags)
    def forget(self, number):
        try:
            self.pool.forget(self.names[number])
        except DynamicCapacityError:
            assert number not in self.kept
            return
        self.kept.remove(number)
        self.settle()

    # -- hosts

    @precondition(lambda self: any(map(self.pending, HOSTS)))
    @rule(host=hosts)
    def accept(self, host):
        """All of the offer whose turn it is."""
        turn = next((at for at, one in enumerate(self.offers[host]) if one[2]), None)
        if turn is None:
            return
        blocks = self.offers[host][turn][0]
        self.ends[host].events()
        assert self.ends[host].accept(*self.extents_of(self.offers[host][turn])) == 0
        self.has[host] |= blocks
        del self.offers[host][: turn + 1]

    def extents_of(self, offer):
        """The extents of a shared offer are taken whole; free blocks in a row are one."""
        runs: list[tuple[int, int]] = []
        for start, length in self.ranges(offer[0]):
            if runs and runs[-1][0] + runs[-1][1] == start:
                runs[-1] = (runs[-1][0], runs[-1][1] + length)
            else:
                runs.append((start, length))
        return runs

    @precondition(lambda self: all(one[2] for each in self.offers.values() for one in each))
    @rule(host=hosts)
    def reject(self, host):
        assert (self.ends[host].accept() == 0) == bool(self.offers[host])
        del self.offers[host][:1]
        self.settle()

    @rule(host=hosts, data=st.data())
    def take_what_is_others(self, host, data):
        """Nobody accepts what he was not offered, whoever has it."""
        others = sorted(
            {block for other in HOSTS if other != host for block in self.has[other] | self.pending(other)}
        )
        others = [block for block in others if block not in self.pending(host)]
        if others:
            block = data.draw(st.sampled_from(others))
            before = self.ends[host].extents()
            assert self.ends[host].accept((self.dpa(block), BLOCK)) != 0
            assert self.ends[host].extents() == before

    @precondition(lambda self: any(self.has.values()))
    @rule(host=hosts, data=st.data())
    def release(self, host, data):
        """A block of its own, or all of a tag's."""
        if self.has[host]:
            block = data.draw(st.sampled_from(sorted(self.has[host])))
            blocks = self.tagged[self.tag_of(block)] if block[0] else {block}
            assert self.ends[host].release(*self.extents_of([blocks])) == 0
            self.has[host] -= blocks
            self.settle()

    @precondition(lambda self: any(self.has.values()))
    @rule(host=hosts, data=st.data())
    def store(self, host, data):
        if self.has[host]:
            block = data.draw(st.sampled_from(sorted(self.has[host])))
            self.devices[host].space.write(self.dpa(block), b"mark")
            self.marks.add(block)

    # -- the world

    @rule()
    def wait(self):
        """Long enough for the offer whose turn it is, of each, and not for the next."""
        self.clock.advance(SECONDS)
        for host in HOSTS:
            head = next((one for one in self.offers[host] if one[2]), None)
            if head is not None:
                head[2] = False
        self.settle()

    @rule(host=hosts, kind=st.sampled_from([Reset.FLR, Reset.HOT, Reset.COLD]))
    def reset(self, host, kind):
        self.devices[host].reset(kind)
        if kind is Reset.COLD:
            self.offers[host].clear()
            if not self.lasting:
                self.has[host].clear()
            self.settle()

    @rule(host=hosts)
    def go_and_come(self, host):
        """A logical device goes, and another one with its number comes."""
        old = self.devices[host]
        self.pool.disconnect(host)
        self.has[host].clear()
        self.offers[host].clear()
        self.settle()
        self.devices[host] = Ld(f"pool.{host}", self.pool, host, volatile=256 * MIB, clock=self.clock)
        self.ends[host] = DcHost(self.devices[host])
        old.close()

    # -- what always holds

    @invariant()
    def agree(self):
        if not hasattr(self, "made"):
            return
        for host in HOSTS:
            found = self.ends[host].extents()
            blocks = [
                (region, (at - BASES[region]) // BLOCK)
                for one in found
                for region in [int(one.start >= BASES[1])]
                for at in range(one.start, one.start + one.length, BLOCK)
            ]
            assert len(blocks) == len(set(blocks))
            assert set(blocks) == self.has[host]
            assert {(one.start, one.length) for one in found} == {
                (one.start, one.length) for one in self.pool.hosts[host].accepted
            }
        alone = [{block for block in self.has[host] | self.pending(host) if block[0] == 0} for host in HOSTS]
        assert not alone[0] & alone[1]
        for region, base in BASES.items():
            free = {
                (region, (at - base) // BLOCK)
                for start, end in self.pool.free(region)
                for at in range(start, end, BLOCK)
            }
            every = {(region, at) for at in range(BLOCKS)}
            assert free == every - self.taken()
        for one in self.pool.tags:
            number = one.tag.int
            assert set(one.hosts) == {host for host in HOSTS if self.tagged[number] & self.has[host]}
            assert set(one.pending) == {host for host in HOSTS if self.tagged[number] & self.pending(host)}
            assert one.referenced == (number in self.kept)
        assert {one.tag.int for one in self.pool.tags} == set(self.tagged)
        for region, base in BASES.items():
            for at in range(BLOCKS):
                expected = b"mark" if (region, at) in self.marks else bytes(4)
                assert self.pool.medium.read(base + at * BLOCK - START, 4) == expected


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = Pool.TestCase
