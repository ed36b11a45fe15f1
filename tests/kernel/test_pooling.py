"""Two Linux guests share a switch and a device with logical devices: what the fabric manager binds arrives by hot plug,
what it unbinds goes, and what it held is the next host's only as the policy says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from softcxl import Fabric, boot, fm
from softcxl.device.mld.logical import OnUnbind
from softcxl.lab.boot import Machine
from softcxl.lab.errors import GuestGone
from softcxl.lab.parts import Parts
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.switch import LtssmState
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.binding import BindingError, Unbind
from softcxl.switch.physical import PhysicalSwitch
from softcxl.switch.virtual import Vppb
from tests.kernel.conftest import MOVABLE, Linux, pattern, quick
from tests.kernel.test_serve import SOFTCXL
from tests.kernel.traces import until

TOPOLOGY = "pooling.yaml"
MIB = 1 << 20
LEFT, RIGHT = 0, 1
POOL = 0
PATIENCE = 180.0


@pytest.fixture(scope="module")
def rack(fabric: Fabric) -> PhysicalSwitch:
    return fabric.switches["rack"]


@pytest.fixture(scope="module")
def guests(fabric: Fabric, parts: Parts) -> Iterator[dict[str, Linux]]:
    """Both, which boot at the same time."""
    with ExitStack() as stack, ThreadPoolExecutor() as threads:

        def start(host: str) -> Machine:
            return stack.enter_context(boot(fabric, host, parts=parts, append=MOVABLE))

        yield {
            host: Linux(quick(machine), fabric)
            for host, machine in zip("ab", threads.map(start, "ab"), strict=True)
        }


@pytest.fixture
def a(guests: dict[str, Linux]) -> Linux:
    return guests["a"]


@pytest.fixture
def b(guests: dict[str, Linux]) -> Linux:
    return guests["b"]


@pytest.fixture(autouse=True)
def nothing_bound_and_no_regions(request: pytest.FixtureRequest) -> Iterator[None]:
    """LD 0 is free before each test, and what a test has left of regions is not in the way of the next."""
    yield
    if "rack" not in request.fixturenames:
        return
    rack = request.getfixturevalue("rack")
    for virtual in rack.virtual.values():
        vppb = virtual.vppbs[0]
        if vppb.port is not None and vppb.operation is None:
            ended(rack.unbind(virtual.number, 0, UnbindOption.SURPRISE_HOT_REMOVE))
    for guest in request.getfixturevalue("guests").values():
        guest.run("for each in 1 2 3; do cxl destroy-region -f all && break; done")


def serials(guest: Linux) -> set[int]:
    return {one["serial"] for one in guest.json("cxl list -M") or []}


def bind(rack: PhysicalSwitch, vcs: int, guest: Linux) -> str:
    """Bind LD 0; what the guest calls it."""
    rack.bind(vcs, 0, POOL, 0)
    assert rack.virtual[vcs].vppbs[0].status is BindingStatus.BOUND_LD
    serial = guest.fabric.devices["pool.0"].serial
    assert serial in until(lambda: serials(guest), lambda found: serial in found)
    return guest.memdev("pool.0")


def ended(operation: Unbind) -> ReturnCode | None:
    return operation.wait(PATIENCE)


def use(guest: Linux, memdev: str) -> str:
    """Make a region of it; the path of its memory."""
    guest.json(f"cxl create-region -t ram -d decoder0.0 -m {memdev}")
    return guest.devdax()


def test_bound_seen_used_unbound_and_bound_to_the_other(a: Linux, b: Linux, rack: PhysicalSwitch) -> None:
    device = a.fabric.devices["pool.0"]
    before = serials(a)
    path = use(a, bind(rack, LEFT, a))
    a.sh(f"softcxl-memory fill {path} 0 {MIB} 3")
    assert device.space.read(0, MIB) == pattern(MIB, 3).tobytes()
    with pytest.raises(BindingError):
        rack.bind(RIGHT, 0, POOL, 0)

    operation = rack.unbind(LEFT, 0)
    assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.IN_PROGRESS
    assert ended(operation) is ReturnCode.SUCCESS
    assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.UNBOUND
    assert serials(a) == before
    assert not device.attached
    assert device.space.read(0, MIB) == bytes(MIB)

    path = use(b, bind(rack, RIGHT, b))
    b.sh(f"softcxl-memory zeros {path} 0 {MIB}")
    b.sh(f"softcxl-memory fill {path} 0 {MIB} 4")
    assert b.run(f"softcxl-memory zeros {path} 0 {MIB}").status == 1
    assert device.space.read(0, MIB) == pattern(MIB, 4).tobytes()
    # what the first guest may still have mapped is not the second one's memory
    window = a.fabric.hosts["a"].memory.windows[0].medium
    assert window.read(0, MIB) == bytes(MIB)


def test_what_is_kept_is_the_next_hosts(a: Linux, b: Linux, rack: PhysicalSwitch) -> None:
    pool = a.fabric.mlds["pool"]
    pool.on_unbind = OnUnbind.KEEP
    try:
        path = use(b, bind(rack, RIGHT, b))
        b.sh(f"softcxl-memory fill {path} 0 {MIB} 5")
        assert ended(rack.unbind(RIGHT, 0)) is ReturnCode.SUCCESS
        path = use(a, bind(rack, LEFT, a))
        a.sh(f"softcxl-memory check {path} 0 {MIB} 5")
    finally:
        pool.on_unbind = OnUnbind.CLEAR


def test_a_surprise_takes_no_time_and_the_guest_lives(a: Linux, b: Linux, rack: PhysicalSwitch) -> None:
    before = serials(a)
    use(a, bind(rack, LEFT, a))
    assert ended(rack.unbind(LEFT, 0, UnbindOption.SURPRISE_HOT_REMOVE)) is ReturnCode.SUCCESS
    assert until(lambda: serials(a), lambda found: found == before) == before
    assert "Card not present" in a.sh("dmesg")
    use(b, bind(rack, RIGHT, b))
    a.sh("true")


def test_bound_and_unbound_before_the_guest_has_looked(a: Linux, rack: PhysicalSwitch) -> None:
    """Linux hears no button while it brings a slot up: it is pushed again."""
    before = serials(a)
    rack.bind(LEFT, 0, POOL, 0)
    assert ended(rack.unbind(LEFT, 0)) is ReturnCode.SUCCESS
    assert until(lambda: serials(a), lambda found: found == before) == before
    bind(rack, LEFT, a)


def test_a_restart_finds_what_is_bound(b: Linux, rack: PhysicalSwitch) -> None:
    path = use(b, bind(rack, RIGHT, b))
    b.sh(f"softcxl-memory fill {path} 0 {MIB} 6")
    b.machine.reboot()
    quick(b.machine)
    assert len(serials(b)) == 2
    path = use(b, b.memdev("pool.0"))
    b.sh(f"softcxl-memory check {path} 0 {MIB} 6")
    assert ended(rack.unbind(RIGHT, 0)) is ReturnCode.SUCCESS
    assert len(serials(b)) == 1


def test_an_error_of_a_vppb_is_heard(a: Linux, rack: PhysicalSwitch) -> None:
    """Generate AER Event (5203h): QEMU's port has the error, and the root port tells Linux of it."""
    door = rack.management(lambda notification: None)
    a.sh("dmesg -c")
    error = struct.pack("<BBHI32x", LEFT, 1, 0, 6)  # vPPB 0 is numbered 1 here; bit 6 is a bad TLP
    assert door.execute(0x5203, error).code is ReturnCode.SUCCESS
    door.close()
    said = until(lambda: a.sh("dmesg"), lambda text: "BadTLP" in text)
    assert "BadTLP" in said


def test_the_guest_turns_the_slot_off_by_itself(a: Linux, rack: PhysicalSwitch) -> None:
    """Nothing is unbound by that; QEMU's switch ports have no power to turn off, so the device stays, unused."""
    bind(rack, LEFT, a)
    device = a.sh(f"basename $(readlink -f /sys/bus/cxl/devices/{a.memdev('pool.0')}/..)").strip()
    a.sh(f"echo 1 > /sys/bus/pci/devices/{device}/remove")
    assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.BOUND_LD
    assert ended(rack.unbind(LEFT, 0)) is ReturnCode.SUCCESS
    bind(rack, LEFT, a)


# -- guests that do not do as they are asked --------------------------------------------------------------------------


def bound(fabric: Fabric) -> Vppb:
    return fabric.virtual["left"].vppbs[1]


def test_a_guest_that_keeps_the_device(parts: Parts) -> None:
    """Its kernel has no driver for slots: managed, the unbinding is given up and nothing has changed; a surprise is
    not to be argued with."""
    with Fabric.load(f"examples/{TOPOLOGY}") as fabric:
        rack = fabric.switches["rack"]
        rack.patience = 5.0
        with boot(fabric, "a", parts=parts, append=[*MOVABLE, "pcie_ports=compat"]) as machine:
            guest = Linux(quick(machine), fabric)
            assert ended(rack.unbind(LEFT, 1)) is ReturnCode.RETRY_REQUIRED
            assert bound(fabric).status is BindingStatus.BOUND_LD
            path = use(guest, guest.memdev("pool.1"))
            guest.sh(f"softcxl-memory fill {path} 0 {MIB} 8")
            assert fabric.devices["pool.1"].space.read(0, MIB) == pattern(MIB, 8).tobytes()
            assert ended(rack.unbind(LEFT, 1, UnbindOption.SURPRISE_HOT_REMOVE)) is ReturnCode.SUCCESS
            assert not fabric.devices["pool.1"].attached
            guest.sh("true")


def test_a_guest_that_dies(parts: Parts) -> None:
    """What was bound stays bound, and the next guest finds what is bound then."""
    with Fabric.load(f"examples/{TOPOLOGY}") as fabric:
        rack = fabric.switches["rack"]
        with boot(fabric, "a", parts=parts) as machine:
            rack.bind(LEFT, 0, POOL, 0)
            os.kill(machine.pid, signal.SIGKILL)
            with pytest.raises(GuestGone, match="status -9"):
                machine.run("true")
            assert bound(fabric).status is BindingStatus.BOUND_LD
            assert ended(rack.unbind(LEFT, 1)) is ReturnCode.SUCCESS
        assert fabric.open_doors == {}
        assert rack.virtual[LEFT].vppbs[0].status is BindingStatus.BOUND_LD
        assert not rack.ports[rack.virtual[LEFT].upstream].link_up
        with boot(fabric, "a", parts=parts) as machine:
            guest = Linux(machine, fabric)
            assert serials(guest) == {fabric.devices["pool.0"].serial}
            assert rack.ports[rack.virtual[LEFT].upstream].link_up


# -- by sockets: a server, a program that runs the guest, and a fabric manager, each in a process of its own -----------


@contextmanager
def serving(folder: Path) -> Iterator[dict[str, Any]]:
    """A server of the topology; yields what it says when it is ready."""
    words = ["serve", f"examples/{TOPOLOGY}", "--socket", f"unix:{folder}/control", "--json"]
    with subprocess.Popen([*SOFTCXL, *words], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.terminate()
    assert server.returncode == 0


def manage(ready: dict[str, Any], act: Callable[[fm.Switch], Awaitable[Any]]) -> Any:
    """Do something as a fabric manager."""

    async def meet() -> Any:
        async with fm.connect(ready["fm"], timeout=60) as rack:
            return await act(rack)

    return asyncio.run(meet())


def vppb(ready: dict[str, Any]) -> tuple[BindingStatus, bool]:
    """The binding of vPPB 0 of host a, and whether the host is there: the link of its upstream port."""

    async def look(rack: fm.Switch) -> tuple[BindingStatus, bool]:
        (left,) = await rack.virtual_switches([LEFT])
        (port,) = await rack.ports([left.usp])
        return BindingStatus(left.vppbs[0].status), LtssmState(port.ltssm_state) is LtssmState.L0

    found: tuple[BindingStatus, bool] = manage(ready, look)
    return found


COUNT = "cxl list -M | grep -c memdev"


def test_a_guest_of_a_server(parts: Parts, tmp_path: Path) -> None:
    with serving(tmp_path) as ready:
        assert vppb(ready) == (BindingStatus.UNBOUND, False)
        command = (
            f"echo up; until [ $({COUNT}) = 2 ]; do :; done; echo came;"
            f" until [ $({COUNT}) = 1 ]; do :; done; echo went"
        )
        run = ["vm", "run", ready["address"], "--host", "a", "-q", "--", command]
        with subprocess.Popen([*SOFTCXL, *run], stdout=subprocess.PIPE, text=True) as guest:
            assert guest.stdout is not None
            assert guest.stdout.readline() == "up\n"
            assert vppb(ready) == (BindingStatus.UNBOUND, True)
            manage(ready, lambda rack: rack.bind(LEFT, 0, POOL, ld=0))
            assert guest.stdout.readline() == "came\n"
            manage(ready, lambda rack: rack.unbind(LEFT, 0))
            assert vppb(ready)[0] is BindingStatus.UNBOUND
            assert guest.stdout.readline() == "went\n"
        assert guest.returncode == 0
        assert until(lambda: vppb(ready)[1], lambda there: not there) is False


def test_the_program_that_runs_a_guest_is_killed(parts: Parts, tmp_path: Path) -> None:
    """The host has vanished; what is bound stays so, and the next guest finds it."""
    with serving(tmp_path) as ready:
        run = ["vm", "run", ready["address"], "--host", "a", "-q", "--", "echo up; sleep 1000"]
        with subprocess.Popen([*SOFTCXL, *run], stdout=subprocess.PIPE, text=True) as guest:
            assert guest.stdout is not None
            assert guest.stdout.readline() == "up\n"
            manage(ready, lambda rack: rack.bind(LEFT, 0, POOL, ld=0))
            guest.kill()
        assert until(lambda: vppb(ready)[1], lambda there: not there) is False
        assert vppb(ready)[0] is BindingStatus.BOUND_LD
        again = subprocess.run(
            [*SOFTCXL, "vm", "run", ready["address"], "--host", "a", "-q", "--", COUNT],
            capture_output=True,
            text=True,
            timeout=550,
            check=False,
        )
        assert (again.returncode, again.stdout, again.stderr) == (0, "2\n", "")
        manage(ready, lambda rack: rack.unbind(LEFT, 0))
        assert vppb(ready) == (BindingStatus.UNBOUND, False)


def test_the_demo(parts: Parts) -> None:
    """It says what is wrong, if anything, and ends with status 0 otherwise."""
    ran = subprocess.run(
        [sys.executable, "examples/demo_pooling.py"], capture_output=True, text=True, timeout=550, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "WRONG" not in ran.stdout
    assert ran.stdout.endswith("ok    everybody saw what is theirs, and nothing else\n")
