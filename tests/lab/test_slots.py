"""Orders carried out at a guest's ports, against a QEMU of a few lines that says what QEMU 11.1 says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import pytest

from softcxl.fabric.visitor import Order
from softcxl.lab import slots as module
from softcxl.lab.errors import MonitorError
from softcxl.lab.guest import Guest
from softcxl.lab.plan import Endpoint, GuestPlan
from softcxl.lab.qmp import Monitor
from softcxl.lab.qtest import Qtest
from softcxl.lab.slots import Slots
from softcxl.lab.switch_slots import ECAM, SwitchSlots
from softcxl.spec.pci.bridge import Indicator

PORT = "left-port0"
SOON = 60.0


class FakeMonitor:
    """Answers `execute` from `refusals`, one for each command, and tells of devices that have gone."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[tuple[str, Any]] = []
        self.refusals: dict[str, list[str]] = {}
        self.changed = threading.Condition()

        self.functions: list[str] = []
        """What QEMU has yet of the device that it has reported as deleted."""

    def execute(self, command: str, /, **arguments: Any) -> Any:
        with self.changed:
            self.asked.append((command, arguments.get("id")))
            self.changed.notify_all()
            refusals = self.refusals.get(command, [])
            if command == "qom-list":
                return [{"name": one} for one in self.functions]
        if refusals:
            raise MonitorError(f"QEMU refused {command}: {refusals.pop(0)}")
        return None

    def wait_event(self, name: str, timeout: float, since: int, matching: Callable[[Any], bool]) -> Any:
        with self.changed:
            found = [data for one, data in self.events[since:] if one == name and matching(data)]
            if not found:
                self.changed.wait(0.01)
                raise MonitorError(f"QEMU did not report {name} within {timeout:g} seconds.")
            return found[0]

    def deleted(self, device: str) -> None:
        with self.changed:
            self.events.append(("DEVICE_DELETED", {"device": device}))
            self.changed.notify_all()

    def saw(self, command: str, count: int = 1) -> bool:
        """Whether the command has come so often, soon."""
        with self.changed:
            return self.changed.wait_for(lambda: [one for one, _ in self.asked].count(command) >= count, SOON)


class FakeSlots:
    """A slot whose indicator the test sets; pulling takes the device away."""

    def __init__(self, monitor: FakeMonitor) -> None:
        self.monitor, self.light, self.pulled = monitor, Indicator.ON, threading.Event()

    def indicator(self, port: str) -> Indicator:
        assert port == PORT
        return self.light

    def pull(self, port: str) -> None:
        self.pulled.set()
        self.monitor.deleted("mem0")


class FakeGuest:
    def __init__(self) -> None:
        self.plan = GuestPlan("g")
        self.monitor = FakeMonitor()
        self.switch_slots = FakeSlots(self.monitor)
        self.ended = False
        self.plugged: list[tuple[Endpoint, str]] = []

    def plug(self, endpoint: Endpoint, port: str) -> None:
        self.monitor.execute("device_add", id=endpoint.name)
        self.plugged.append((endpoint, port))


class Fabric:
    """Where orders come from."""

    def __init__(self) -> None:
        self._orders: SimpleQueue[list[Order] | None] = SimpleQueue()
        self._told: SimpleQueue[tuple[int, str]] = SimpleQueue()

    def give(self, *orders: Order) -> None:
        self._orders.put(list(orders))

    def take(self) -> list[Order] | None:
        return self._orders.get()

    def told(self, number: int, problem: str) -> None:
        self._told.put((number, problem))

    def stop(self) -> None:
        self._orders.put(None)

    @property
    def unanswered(self) -> bool:
        return self._told.empty()

    @property
    def answer(self) -> tuple[int, str]:
        return self._told.get(timeout=SOON)


@pytest.fixture
def fabric() -> Fabric:
    return Fabric()


@pytest.fixture
def guest(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGuest]:
    monkeypatch.setattr(module, "PRESS_AGAIN", 0.05)
    fake = FakeGuest()
    with Slots(fabric) as slots:
        slots.start(cast(Guest, fake))
        yield fake
        fake.ended = True


def order(number: int, act: Any) -> Order:
    return Order(number, act, "mem0", PORT, "/run/mem0.sock" if act == "add" else "")


def test_a_device_is_added_at_its_port(guest: FakeGuest, fabric: Fabric) -> None:
    fabric.give(order(1, "add"))
    assert fabric.answer == (1, "")
    assert guest.plugged == [(Endpoint("mem0", Path("/run/mem0.sock")), PORT)]


def test_what_qemu_refuses_is_told(guest: FakeGuest, fabric: Fabric) -> None:
    guest.monitor.refusals["device_add"] = ["Bus 'left-port0' not found"]
    fabric.give(order(1, "add"))
    assert fabric.answer == (1, "QEMU refused device_add: Bus 'left-port0' not found")
    assert guest.plugged == []


def test_qemu_forgets_a_name_a_moment_late(guest: FakeGuest, fabric: Fabric) -> None:
    guest.monitor.refusals["device_add"] = ["Duplicate device ID 'mem0'"] * 2
    fabric.give(order(1, "add"))
    assert fabric.answer == (1, "")
    assert len(guest.plugged) == 1


def test_the_device_goes_when_the_indicator_goes_off(guest: FakeGuest, fabric: Fabric) -> None:
    fabric.give(order(1, "remove"))
    assert guest.monitor.saw("device_del")
    guest.switch_slots.light = Indicator.BLINKING
    assert not guest.switch_slots.pulled.is_set()
    guest.switch_slots.light = Indicator.OFF
    assert fabric.answer == (1, "")
    assert guest.switch_slots.pulled.is_set()


def test_an_indicator_that_never_was_on_says_nothing(guest: FakeGuest, fabric: Fabric) -> None:
    """So it is where a device was plugged in before the kernel started."""
    guest.switch_slots.light = Indicator.OFF
    fabric.give(order(1, "remove"))
    assert guest.monitor.saw("device_del", 2)
    assert not guest.switch_slots.pulled.is_set()
    guest.switch_slots.light = Indicator.BLINKING
    assert guest.monitor.saw("device_del", 2)
    guest.monitor.deleted("mem0")
    assert fabric.answer == (1, "")


def test_a_button_that_is_not_heard_is_pushed_again(guest: FakeGuest, fabric: Fabric) -> None:
    guest.monitor.refusals["device_del"] = ["Device mem0 is already in the process of unplug"]
    fabric.give(order(1, "remove"))
    assert guest.monitor.saw("device_del", 3)
    guest.monitor.deleted("mem0")
    assert fabric.answer == (1, "")


def test_a_device_has_gone_when_all_its_functions_have(guest: FakeGuest, fabric: Fabric) -> None:
    """QEMU reports function 0, and deletes the others after it: their doors must not close before."""
    guest.monitor.functions = ["mem0.1"]
    fabric.give(order(7, "pull"))
    assert guest.monitor.saw("qom-list", 3)
    assert fabric.unanswered
    guest.monitor.functions = []
    assert fabric.answer == (7, "")


def test_a_pull_asks_nobody(guest: FakeGuest, fabric: Fabric) -> None:
    fabric.give(order(1, "pull"))
    assert fabric.answer == (1, "")
    assert "device_del" not in [command for command, _ in guest.monitor.asked]


def test_an_order_is_taken_back(guest: FakeGuest, fabric: Fabric) -> None:
    fabric.give(order(1, "remove"))
    assert guest.monitor.saw("device_del")
    fabric.give(order(2, "keep"), order(3, "add"))
    assert [fabric.answer, fabric.answer] == [(2, ""), (3, "")]
    assert not guest.switch_slots.pulled.is_set()


def test_what_is_not_there_has_gone(guest: FakeGuest, fabric: Fabric) -> None:
    guest.monitor.refusals["device_del"] = ["Device 'mem0' not found"]
    fabric.give(order(1, "remove"))
    assert fabric.answer == (1, "")


def test_a_machine_that_ends_has_no_devices(guest: FakeGuest, fabric: Fabric) -> None:
    fabric.give(order(1, "remove"))
    assert guest.monitor.saw("device_del")
    guest.ended = True
    assert fabric.answer == (1, "")


# -- the slots of QEMU's switch ports ---------------------------------------------------------------------------------


class Registers:
    """Configuration space of one port, by address; `written` keeps what was."""

    def __init__(self, base: int, device: int = 0xA12919E5) -> None:
        self.words = {base: device, base + 0xA8: 0x0100}  # Slot Control: power indicator on
        self.written: list[tuple[int, int]] = []

    def read16(self, address: int) -> int:
        return self.words[address]

    def read32(self, address: int) -> int:
        return self.words.get(address, 0xFFFFFFFF)

    def write16(self, address: int, value: int) -> None:
        self.written.append((address, value))


class Tree:
    """What query-pci says of a bridge, a root port, a switch and its two ports (QEMU qapi/pci.json)."""

    def execute(self, command: str) -> Any:
        assert command == "query-pci"
        ports = [
            {"bus": 14, "slot": slot, "function": 0, "qdev_id": f"left-port{slot}", "pci_bridge": {"bus": {}}}
            for slot in range(2)
        ]
        upstream = {
            "bus": 13, "slot": 0, "function": 0, "qdev_id": "left", "pci_bridge": {"bus": {}, "devices": ports}
        }  # fmt: skip
        root = {
            "bus": 12, "slot": 0, "function": 0, "qdev_id": "hb-port0",
            "pci_bridge": {"bus": {}, "devices": [upstream]},
        }  # fmt: skip
        return [
            {"bus": 0, "devices": [{"bus": 0, "slot": 0, "function": 0, "qdev_id": ""}]},
            {"bus": 12, "devices": [root]},
        ]


def slots_at(registers: Registers) -> SwitchSlots:
    return SwitchSlots(cast(Monitor, Tree()), cast(Qtest, registers))


def test_a_port_is_found_by_its_name_and_pulling_is_two_writes() -> None:
    base = ECAM + (14 << 20 | 1 << 15)
    registers = Registers(base)
    found = slots_at(registers)
    assert found.indicator("left-port1") is Indicator.ON
    found.pull("left-port1")
    # power controller control is bit 10, an indicator that is off 11b in bits 9:8; then as it was
    assert registers.written == [(base + 0xA8, 0x0700), (base + 0xA8, 0x0100)]


@pytest.mark.parametrize(
    ("port", "device", "said"),
    [
        ("left-port7", 0xA12919E5, "QEMU has no port left-port7."),
        ("left-port1", 0xFFFFFFFF, "left-port1 is no switch port, or not where its bus number says."),
    ],
)
def test_a_port_that_is_not_there(port: str, device: int, said: str) -> None:
    registers = Registers(ECAM + (14 << 20 | 1 << 15), device)
    with pytest.raises(MonitorError, match=said):
        slots_at(registers).pull(port)
    assert registers.written == []
