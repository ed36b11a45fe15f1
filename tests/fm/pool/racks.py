"""A rack of two hosts and a device that both may have memory of, at a door for fabric managers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from softcxl.fabric.build import Fabric
from softcxl.fabric.endpoints import endpoints
from softcxl.fm.connection import Connection
from softcxl.fm.pool.fence import Connect
from softcxl.switch.physical import PhysicalSwitch
from softcxl.transport.mctp import MctpTcpDoor

MIB, GIB = 1 << 20, 1 << 30
UNIT = 256 * MIB

TOPOLOGY = """\
devices:
  shared:
    type: mld
    volatile: 1GiB
    logical_devices: [256MiB, 0, 0, 0]
    dynamic: [{length: 512MiB}]
  spare: {volatile: 256MiB}
switches:
  rack:
    ports: [shared, spare]
    virtual: {left: {ports: [shared.0, null, null]}, right: {ports: [null]}}
hosts:
  a: {bridges: {hb: {ports: [left]}}, windows: [{size: 2GiB, targets: [hb]}]}
  b: {bridges: {hb: {ports: [right]}}, windows: [{size: 2GiB, targets: [hb]}]}
"""
HOSTS = {"a": [("rack", 0)], "b": [("rack", 1)]}


@dataclass
class Rack:
    """The fabric, how to come to its door, and a clock to turn."""

    fabric: Fabric
    connect: Connect
    names: dict[str, int]
    seconds: float = 1000.0
    told: list[tuple[str, str]] = field(default_factory=list)

    @property
    def switch(self) -> PhysicalSwitch:
        return self.fabric.switches["rack"]

    def bound(self) -> list[str]:
        """What is bound, by the names of vPPBs."""
        return [
            f"{vppb.name} {vppb.port.number}.{vppb.ld}"
            for virtual in self.switch.virtual.values()
            for vppb in virtual.vppbs
            if vppb.port is not None
        ]

    def sizes(self) -> list[int]:
        """What each logical device has."""
        return [one.volatile for one in self.fabric.mlds["shared"].allocations.each]

    def now(self) -> float:
        return self.seconds

    def tell(self, kind: str, subject: str, **detail: object) -> None:
        self.told.append((kind, subject))


@contextmanager
def rack(text: str = TOPOLOGY) -> Iterator[Rack]:
    with Fabric.loads(text) as fabric:
        served = endpoints(fabric)
        with MctpTcpDoor(served, "127.0.0.1", 0) as door:
            address = f"tcp:127.0.0.1:{door.address[1]}"
            names = {one.name: number for number, one in served.items()}
            yield Rack(fabric, lambda: Connection.open(address), names)
