"""Fabrics to try: every leaf a device, every level with ports to spare, regions laid over all of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from softcxl.device.type3 import Type3
from softcxl.memory import Medium, Window, maps_for
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from softcxl.switch.port import CxlLink
from softcxl.switch.route import CxlWindow
from softcxl.switch.upstream import UpstreamPort
from tests.switch.programmer import Found, Programmer, committed

BLOCK = 256 << 20
BASE = 1 << 34
XOR_MAPS = (0x404100, 0x808200, 0x1010400, 0x2020800)  # Linux, tools/testing/cxl/test/cxl.c, went on


@dataclass(frozen=True)
class Level:
    """What one level of a region does: ways, and granularity in bytes. Level 0 is the window."""

    ways: int
    granularity: int


@dataclass(frozen=True)
class Plan:
    """A region over every leaf: `levels` from the window down, and how each list of targets is turned."""

    levels: tuple[Level, ...]
    xor: bool = False
    turn: int = 0

    @property
    def ways(self) -> int:
        total = 1
        for level in self.levels:
            total *= level.ways
        return total

    @property
    def granularity(self) -> int:
        return min((level.granularity for level in self.levels if level.ways > 1), default=256)

    @property
    def size(self) -> int:
        return self.ways * BLOCK


class Fabric:
    """A tree with as many children at each level as the plan has ways, and a spare port at each; programmed for
    `regions` regions one after the other, all of the plan's shape."""

    def __init__(self, plan: Plan, regions: int = 1, offset: int = 0) -> None:
        self.plan, self.regions = plan, regions
        self.base = BASE + offset
        self.stack = ExitStack()
        self.devices: list[Type3] = []
        self.bridges = [
            HostBridge(f"hb{number}", plan.levels[1].ways + 1, uid=number + 10)
            for number in range(plan.levels[0].ways)
        ]
        for bridge in self.bridges:
            for number in range(plan.levels[1].ways):
                self._fill(bridge.ports[number], 2)
        size = plan.size * regions
        maps: tuple[int, ...] = ()
        if plan.xor:
            shift = plan.levels[0].granularity.bit_length() - 9
            maps = maps_for(plan.levels[0].ways, [one << shift for one in XOR_MAPS])
        self.maps = maps
        self.medium = self.stack.enter_context(Medium.memfd("window", size))
        self.window = Window(self.base, size, self.medium)
        self.machine = HostMachine(
            self.bridges, [CxlWindow(self.window, tuple(self.bridges), plan.levels[0].granularity, maps)]
        )
        self.programmer = Programmer(self.machine)

    def __enter__(self) -> Fabric:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def _fill(self, port: CxlLink, depth: int) -> None:
        if depth == len(self.plan.levels):
            name = f"mem{len(self.devices)}"
            device = Type3(name, volatile=BLOCK * self.regions, decoders=8)
            self.stack.callback(device.close)
            self.devices.append(device)
            port.plug(device)
            return
        ways = self.plan.levels[depth].ways
        switch = UpstreamPort(f"{port.name}/sw", ways + 1)
        port.plug(switch)
        for number in range(ways):
            self._fill(switch.ports[number], depth + 1)

    def hpa(self, region: int) -> int:
        return self.base + region * self.plan.size

    def targets(self, depth: int, region: int) -> list[int]:
        """The port numbers of a level, by position: turned, so that position and port number differ."""
        ways = self.plan.levels[depth].ways
        return [(place + self.plan.turn + region) % ways for place in range(ways)]

    def program(self) -> None:
        """All regions, from the endpoints up, as Linux commits."""
        it = self.programmer
        for region in range(self.regions):
            for endpoint in it.endpoints():
                assert committed(
                    it.decoder(
                        endpoint.block,
                        region,
                        hpa=self.hpa(region),
                        size=self.plan.size,
                        ways=self.plan.ways,
                        granularity=self.plan.granularity,
                    )
                )
                it.enable(endpoint)
            for number, ports in enumerate(it.roots):
                self._ports(ports, 2, region)
                assert committed(self.commit(it.bridge(number), 1, region))

    def _ports(self, ports: list[Found], depth: int, region: int) -> None:
        if depth == len(self.plan.levels):
            return
        for port in ports:
            for upstream in port.below:
                self._ports(upstream.below, depth + 1, region)
                assert committed(self.commit(upstream.block, depth, region))

    def commit(self, block: int, depth: int, region: int) -> int:
        level = self.plan.levels[depth]
        return self.programmer.decoder(
            block,
            region,
            hpa=self.hpa(region),
            size=self.plan.size,
            ways=level.ways,
            granularity=level.granularity,
            targets=self.targets(depth, region),
        )

    # -- the slow model

    def expected(self, hpa: int) -> tuple[Type3, int]:
        """The device and DPA of an address, bit by bit as the standard has it (CXL 3.1 §8.2.4.20.13, §9.18.1.5)."""
        region = (hpa - self.base) // self.plan.size
        leaf = 0
        for depth, level in enumerate(self.plan.levels):
            place = _select(hpa, level, self.maps if depth == 0 else ())
            if depth:
                place = self.targets(depth, region)[place]
            leaf = leaf * level.ways + place
        offset = hpa - self.hpa(region)
        stripe = self.plan.ways * self.plan.granularity
        share = offset // stripe * self.plan.granularity + offset % self.plan.granularity
        return self.devices[leaf], region * BLOCK + share


def _select(hpa: int, level: Level, maps: tuple[int, ...]) -> int:
    low = level.granularity.bit_length() - 1
    bits = {1: 0, 2: 1, 4: 2, 8: 3, 16: 4, 3: 0, 6: 1, 12: 2}[level.ways]
    place = 0
    for bit in range(bits):
        if maps:
            place |= bin(hpa & maps[bit]).count("1") % 2 << bit
        else:
            place |= (hpa >> low + bit & 1) << bit
    if level.ways % 3 == 0:
        place += (hpa >> low + bits) % 3 << bits
    return place
