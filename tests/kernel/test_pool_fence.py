"""A guest has memory of its own for a lease. It stops, its lease runs out, and the fabric takes the memory from it
before another host has it: what the guest does when it comes back is nobody's any more."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from softcxl import Fabric, boot
from softcxl.fabric.endpoints import endpoints
from softcxl.fm.connection import Connection
from softcxl.fm.pool.fence import Binding, Fence
from softcxl.fm.pool.grants import Grants, NoRoom
from softcxl.lab.parts import Parts
from softcxl.transport.mctp import MctpTcpDoor
from tests.kernel.conftest import MOVABLE, Linux, pattern, quick
from tests.kernel.traces import until

TOPOLOGY = """
devices:
  shared: {type: mld, volatile: 256MiB, logical_devices: [0, 0]}
switches:
  rack:
    ports: [shared]
    virtual: {left: {ports: [null]}, right: {ports: [null]}}
hosts:
  a: {bridges: {hb: {ports: [left]}}, windows: [{size: 256MiB, targets: [hb]}]}
  b: {bridges: {hb: {ports: [right]}}, windows: [{size: 256MiB, targets: [hb]}]}
"""
MIB = 1 << 20
SIZE = 256 * MIB
HOSTS = {"a": [("rack", 0)], "b": [("rack", 1)]}


class Clock:
    """Seconds, as the test says."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@contextmanager
def granting(fabric: Fabric, page: Path, clock: Clock) -> Iterator[Grants]:
    served = endpoints(fabric)
    with MctpTcpDoor(served, "127.0.0.1", 0) as door:
        address = f"tcp:127.0.0.1:{door.address[1]}"
        names = {one.name: number for number, one in served.items()}
        yield Grants(Fence(lambda: Connection.open(address), names), HOSTS, page, now=clock)


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "running"])
def test_a_guest_whose_lease_runs_out_has_lost_its_memory_before_another_has_it(
    parts: Parts, tmp_path: Path, stopped: bool
) -> None:
    clock = Clock()
    with (
        Fabric.loads(TOPOLOGY) as fabric,
        granting(fabric, tmp_path / "grants.json", clock) as grants,
        boot(fabric, "a", parts=parts, append=MOVABLE) as machine,
    ):
        guest = Linux(quick(machine), fabric)
        first = asyncio.run(grants.grant(SIZE, "a", 10.0))
        assert first.place == Binding("rack", 0, 0, 0, 0)
        lent = fabric.devices["shared.0"]
        until(lambda: guest.json("cxl list -M") or [], lambda found: bool(found))
        guest.json(f"cxl create-region -t ram -d decoder0.0 -m {guest.memdev('shared.0')}")
        path = guest.devdax()
        guest.sh(f"softcxl-memory fill {path} 0 {MIB} 3")
        assert lent.space.read(0, MIB) == pattern(MIB, 3).tobytes()
        with pytest.raises(NoRoom, match="nothing left"):
            asyncio.run(grants.grant(SIZE, "b", 10.0))
        if stopped:
            # it is in the midst of writing, and goes on with that when it comes back
            guest.sh(f"while softcxl-memory fill {path} 0 {MIB} 4; do :; done >/dev/null 2>&1 &")
            os.kill(machine.pid, signal.SIGSTOP)
        try:
            clock.seconds += 10.0
            assert asyncio.run(grants.look()) is None
            assert grants.all == []
            assert "shared.0" not in fabric.devices
            second = asyncio.run(grants.grant(SIZE, "b", 10.0))
            assert second.place == Binding("rack", 1, 0, 0, 0)
            given = fabric.devices["shared.0"]
            assert given.space.read(0, MIB) == bytes(MIB)  # nothing of the first host's is left
            given.space.write(0, pattern(MIB, 5).tobytes())
        finally:
            if stopped:
                os.kill(machine.pid, signal.SIGCONT)
        assert until(lambda: guest.json("cxl list -M") or [], lambda found: not found) == []
        guest.run(
            f"softcxl-memory fill {path} 0 {MIB} 6", timeout=180
        )  # there is no such memory, or it is nobody's
        assert given.space.read(0, MIB) == pattern(MIB, 5).tobytes()
        guest.sh("true")
