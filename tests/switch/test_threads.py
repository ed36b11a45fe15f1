"""Hosts, fabric managers and hands on the hardware, all at once: nobody waits for ever, and it ends well."""

import random
import threading
import traceback

import pytest

import softcxl
from softcxl.device.clock import SystemClock
from softcxl.host.errors import HostError
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.errors import AccessFault
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.physical import PhysicalSwitch
from tests.switch.manager import BUSY, INVALID_INPUT, STARTED, SUCCESS, Manager

MIB = 1 << 20
TURNS = 2000

HOSTS = """
devices: {spare: {volatile: 256MiB}}
hosts:
  a: {bridges: {hb0: {ports: [null]}}, windows: [{size: 2GiB, targets: [hb0]}]}
  b: {bridges: {hb0: {ports: [null]}}, windows: [{size: 2GiB, targets: [hb0]}]}
"""


@pytest.fixture
def clock():
    """One that runs: what has ended is seen by its thread, too."""
    made = SystemClock()
    yield made
    made.close()


def test_notifications_come_by_themselves(switch, fm):
    """With a clock that runs, the end of a background operation is told without being asked for."""
    told, manager = threading.Event(), Manager(switch)
    manager.door.policy._send = lambda request: told.set()
    assert manager.send(0x0105, b"\0\x80")[0] == SUCCESS
    assert manager.bind(0, 0, 0) == STARTED
    assert told.wait(60)
    assert manager.background() == (0, 100, 0x5201, SUCCESS)
    manager.door.close()


def test_a_manager_that_leaves_in_the_middle(switch, slow, memory):
    """What it has set going goes on, and another manager finds it."""
    first, second = Manager(switch), Manager(switch)
    assert first.bind(0, 0, 0) == STARTED
    assert first.unbind(0, 0) == STARTED
    first.door.close()
    assert second.unbind(0, 0, 2) == BUSY
    slow.let_go(0)
    assert second.background() == (0, 100, 0x5202, SUCCESS)
    second.door.close()


def test_a_manager_leaves_while_no_event_is_told(switch):
    """Whoever writes to an event log tells one manager after the other: none is left out as another one leaves."""

    class Told(list):
        def remove(self, one):
            held.append(switch.lock._is_owned())
            super().remove(one)

    held: list[bool] = []
    manager = Manager(switch)
    switch.events.filled = Told(switch.events.filled)
    manager.door.close()
    assert held == [True]
    assert switch.events.filled == []


def test_all_at_once(switch, pool):
    """Two hosts that see to their slots and use what is there, two managers, and a hand on PERST# and the slot."""
    assert isinstance(switch, PhysicalSwitch)
    switch.patience = 0.2  # a host that has just lost a device may take the button for a request to add it
    failures: list[str] = []
    used: set[object] = set()
    over = threading.Event()

    def forever(work):
        def run():
            try:
                while not over.is_set():
                    work()
            except BaseException as error:  # noqa: BLE001  # of whatever kind, it is the test's
                failures.append("".join(traceback.format_exception(error)))
                over.set()

        return threading.Thread(target=run, daemon=True)

    def host(system):
        def work():
            try:
                system.service_slots()
                for one in list(system.regions.values()):
                    if not one.enabled:
                        system.destroy_region(one)
                for name in list(system.memdevs):
                    system.create_region([name], type="ram").write(0, b"x" * 64)
                    used.add(system)
            except (HostError, AccessFault):
                pass  # it is pulled as it is used

        return work

    def manager(door, seed, turns):
        choice = random.Random(seed)

        def work():
            vcs, vppb, target = choice.randrange(2), choice.randrange(2), choice.randrange(3)
            if choice.random() < 0.5:
                port, ld = (0, 0xFFFF) if target == 2 else (1, target)
                code = door.bind(vcs, vppb, port, ld)
            else:
                code = door.unbind(vcs, vppb, choice.choice((1, 1, 2)))
            assert code in (STARTED, INVALID_INPUT, BUSY), code
            door.vcs(0, 1)
            door.ports(0, 1)
            if not seed:
                door.events()  # one reads them: two would clear each other's
            turns.append(code)
            if len(turns) >= TURNS and len(used) == 2:
                over.set()

        return work

    def hand():
        for port in (switch.ports[0], switch.ports[1]):
            port.assert_perst()
            port.deassert_perst()
        switch.ports[0].insert(switch.ports[0].remove())

    with softcxl.Fabric.loads(HOSTS) as fabric:
        threads = []
        for number, live in enumerate(fabric.hosts.values()):
            virtual = switch.virtual[number]
            tenant = virtual.tenant = Hierarchy(virtual.name, len(virtual.vppbs))
            live.machine.bridges[0].ports[0].plug(tenant.upstream)
            threads.append(forever(host(live.boot())))
        doors = [Manager(switch), Manager(switch)]
        turns: list[int] = []
        threads += [forever(manager(door, seed, turns)) for seed, door in enumerate(doors)] + [forever(hand)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(500)
        assert not failures, failures[0]
        assert not any(one.is_alive() for one in threads), "somebody waits for ever"
        assert STARTED in turns

        for number in switch.virtual:
            for vppb in switch.virtual[number].vppbs:
                if vppb.operation is not None:
                    vppb.operation.give_up(ReturnCode.BUSY)
                if vppb.status is not BindingStatus.UNBOUND:
                    assert (
                        switch.unbind(number, vppb.number, UnbindOption.SURPRISE_HOT_REMOVE).code == SUCCESS
                    )
        assert not any(port.bindings for port in switch.ports.values())
        assert all(one.holder is None and one.seat is None for one in pool.logical.values())
        for one in doors:
            one.door.close()
