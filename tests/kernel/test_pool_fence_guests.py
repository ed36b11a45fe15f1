"""A guest that is not heard of loses its way to the pool, by the fabric, before what its programs had is given on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from softcxl import Fabric, boot
from softcxl.cli.serve_grants import ways
from softcxl.cli.serve_pool import fenced
from softcxl.fabric.endpoints import endpoints
from softcxl.fabric.pool import sources
from softcxl.fm.connection import Connection
from softcxl.fm.pool.door import PoolDoor
from softcxl.fm.pool.fence import Fence
from softcxl.fm.pool.grants import Grants
from softcxl.fm.pool.guests import Guests
from softcxl.fm.pool.leases import Leases
from softcxl.fm.pool.server import PoolServer
from softcxl.lab.boot import Machine
from softcxl.lab.parts import Parts
from softcxl.memory.dpa import DpaSpace
from softcxl.pool.errors import NoRoom
from softcxl.pool.layout import Plan
from softcxl.pool.region import Region
from softcxl.pool.session import Pool, connect
from softcxl.transport.mctp import MctpTcpDoor
from tests.kernel.traces import until

MIB = 1 << 20
SIZE = 256 * MIB
LEASE = 15.0  # seconds, in which an emulated guest on a busy machine has to be heard of
FENCED = 300.0  # seconds: a lease, what a switch has to let go, and whatever the machine is busy with
PLAN = Plan(slots=64, regions=1 << 10, heap=16 * MIB)
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB}
  door: {type: pool-access}
pool: {memory: [mem0], fence_guests: true}
hosts:
  guest: {bridges: {hb0: {ports: [vcs0]}}, memory: 768MiB}
switches:
  rack: {ports: [door], virtual: {vcs0: {ports: [door]}}}
"""

WRITER = """
import os, softcxl
pool = softcxl.connect(name="writer")
region = pool.allocate("256MiB")
view = region.view()
print("writes", flush=True)
while True:
    view[:4096] = b"\\xee" * 4096
"""


@dataclass
class Rack:
    """A pool whose memory is one device's, and a guest that comes to it by a switch."""

    fabric: Fabric
    server: PoolServer
    address: str
    machine: Machine
    events: list[str] = field(default_factory=list)


@pytest.fixture
def rack(parts: Parts, tmp_path: Path) -> Iterator[Rack]:
    arena = os.memfd_create("arena", os.MFD_CLOEXEC)
    os.ftruncate(arena, PLAN.size)
    events: list[str] = []

    def happened(kind: str, subject: str, detail: Mapping[str, Any]) -> None:
        events.append(kind)

    with ExitStack() as stack:
        stack.callback(os.close, arena)
        fabric = stack.enter_context(Fabric.loads(TOPOLOGY))
        served = endpoints(fabric)
        managed = stack.enter_context(MctpTcpDoor(served, "127.0.0.1", 0))
        address = f"tcp:127.0.0.1:{managed.address[1]}"
        names = {one.name: number for number, one in served.items()}
        leases = Leases(
            lambda: Grants(
                Fence(lambda: Connection.open(address), names),
                {"guest": [("rack", 0)]},
                tmp_path / "grants.json",
                tell=lambda kind, host, **detail: events.append(kind),
            ),
            lambda host: ways(fabric, host),
        )
        server = stack.enter_context(
            PoolServer(
                arena,
                sources(fabric),
                plan=PLAN,
                lease=LEASE,
                fence=lambda host: fenced(fabric, server, leases, host),
                event=happened,
            )
        )
        stack.enter_context(leases)
        guests = Guests(server)
        stack.enter_context(PoolDoor(server, tmp_path / "s"))
        for access in fabric.access.values():
            access.serve(guests)
            stack.callback(access.leave)
        machine = stack.enter_context(boot(fabric, "guest", parts=parts, python=True))
        yield Rack(fabric, server, f"unix:{tmp_path / 's'}", machine, events)


def all_of(pool: Pool) -> Region | None:
    """All memory of the pool, as soon as nobody else has it."""
    try:
        return pool.allocate(SIZE)
    except NoRoom:
        return None


def machine_maps(machine: Machine, memory: DpaSpace) -> bool:
    """Whether QEMU could reach the memory: Linux says what a process has mapped."""
    inode = os.fstat(memory.home.fd).st_ino
    maps = Path(f"/proc/{machine.pid}/maps").read_text()
    return any(int(line.split()[4]) == inode for line in maps.splitlines())


HERE = "grep -l 0x1e98 /sys/bus/pci/devices/*/vendor | wc -l"
MINE = bytes(range(256)) * 16


@pytest.mark.parametrize("stopped", ["program", "machine"])
def test_what_a_silent_guest_had_is_anothers_when_the_guest_cannot_reach_it(rack: Rack, stopped: str) -> None:
    """It writes all the time, and goes on with that when it comes back."""
    machine, memory = rack.machine, rack.fabric.devices["mem0"].space
    machine.output(
        f"cat >/tmp/writer.py <<'END'\n{WRITER}END\n"
        "python3 -u /tmp/writer.py >/tmp/said 2>&1 </dev/null & echo $! >/tmp/writer"
    )
    assert until(lambda: memory.read(0, 4), lambda found: found == b"\xee" * 4) == b"\xee" * 4
    assert machine_maps(machine, memory)
    with connect(rack.address, name="host", patience=60) as pool:
        assert all_of(pool) is None
        if stopped == "program":
            machine.output("kill -STOP $(cat /tmp/writer)")
        else:
            os.kill(machine.pid, signal.SIGSTOP)
            until(lambda: list(rack.events), lambda found: "host not fenced" in found, FENCED)
            # It has lost its way in, and does not know yet: till then nothing is given on
            assert rack.events.index("cut-off") < rack.events.index("host not fenced")
            assert not rack.fabric.open_doors
            assert all_of(pool) is None
            assert "client gone" not in rack.events
            os.kill(machine.pid, signal.SIGCONT)
        mine = until(lambda: all_of(pool), lambda found: found is not None, FENCED)
        assert mine is not None
        assert not machine_maps(machine, memory)
        assert mine.read(0, 4096) == bytes(4096)
        mine.write(0, MINE)
        assert until(lambda: machine.output(HERE), lambda found: found == "0\n") == "0\n"
        machine.output("kill -CONT $(cat /tmp/writer); sleep 1")
        assert mine.read(0, 4096) == MINE
