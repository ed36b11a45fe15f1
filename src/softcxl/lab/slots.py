"""A guest's ports that a fabric manager fills and empties: orders of a fabric, carried out in QEMU."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

from softcxl.fabric.visitor import Order
from softcxl.lab.errors import MonitorError
from softcxl.lab.guest import Guest
from softcxl.lab.plan import Endpoint
from softcxl.spec.pci.bridge import Indicator

log = logging.getLogger(__name__)

PRESS_AGAIN = 12.0
"""Seconds after which a slot's button is pushed once more: Linux takes 5 to think, and hears none while it is busy with
the slot or not up yet. Within those 5 QEMU pushes none, because Linux would take it for a change of mind."""

FORGETS = 10.0
"""Seconds that QEMU may take to be rid of a device that has left."""

LOOK = 0.2
"""Seconds from one look at a slot's power indicator to the next."""


class Orders(Protocol):
    """Where orders come from, and how they are answered. Both may be called from any thread."""

    def take(self) -> list[Order] | None:
        """The next orders; waits for them, a while. None: there will be none any more."""

    def told(self, number: int, problem: str) -> None:
        """What became of an order: nothing, or what the problem is."""

    def stop(self) -> None:
        """`take` returns None from now on."""


class Slots:
    """Carries out `orders` at the ports of a guest, from `start` until the `with` statement ends, before which the
    guest has to be closed.

    QEMU asks the guest to let go of a device as a slot's button does, and nobody can make it. So a removal lasts until
    the device has gone, or the order is taken back; one that is "pull" is over at once.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._lock = threading.Lock()
        self._removals: dict[str, Order] = {}
        self._threads: list[threading.Thread] = []
        self._guest: Guest | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._removals.clear()
        self._orders.stop()
        for thread in self._threads:
            thread.join()

    def start(self, guest: Guest) -> None:
        """The guest is up."""
        self._guest = guest
        self._run(self._serve, f"slots {guest.plan.name}")

    def _run(self, work: object, name: str, *arguments: object) -> None:
        thread = threading.Thread(target=work, name=name, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _serve(self) -> None:
        guest = self._guest
        assert guest is not None, "started with it"
        while (orders := self._orders.take()) is not None:
            for order in orders:
                if order.act == "add":
                    self._add(guest, order)
                elif order.act == "error":
                    self._error(guest, order)
                elif order.act == "keep":
                    with self._lock:
                        self._removals.pop(order.device, None)
                    self._orders.told(order.number, "")
                else:
                    with self._lock:
                        self._removals[order.device] = order
                    self._run(self._remove, f"slot {order.port}", guest, order)

    def _add(self, guest: Guest, order: Order) -> None:
        # QEMU leaves a device's socket a moment before it forgets the device's name
        deadline = time.monotonic() + FORGETS
        while True:
            problem = ""
            try:
                if order.functions and not _forgotten(guest, order.device) and time.monotonic() < deadline:
                    time.sleep(0.05)  # one of several functions could be plugged in, and the next one not
                    continue
                guest.plug(
                    Endpoint(order.device, Path(order.socket), tuple(map(Path, order.functions))), order.port
                )
            except MonitorError as error:
                problem = "" if guest.ended else str(error)
            if "Duplicate" not in problem or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        self._orders.told(order.number, problem)

    def _error(self, guest: Guest, order: Order) -> None:
        which = "-c " if order.correctable else ""
        words = " ".join(f"{word:#x}" for word in order.header)
        line = f"pcie_aer_inject_error {which}{order.port} {order.status:#x} {words}"
        problem = ""
        try:
            said = guest.monitor.execute("human-monitor-command", command_line=line).strip()
            if not said.startswith("OK"):
                problem = f"QEMU refused an error at {order.port}: {said}"
        except MonitorError as error:
            problem = "" if guest.ended else str(error)
        self._orders.told(order.number, problem)

    def _remove(self, guest: Guest, order: Order) -> None:
        def taken_back() -> bool:
            return self._removals.get(order.device) is not order

        if not let_go(guest, order.device, order.port, taken_back, pull=order.act == "pull"):
            return
        with self._lock:
            if not taken_back():
                del self._removals[order.device]
        self._orders.told(order.number, "")


def let_go(guest: Guest, device: str, port: str, given_up: Callable[[], bool], *, pull: bool = False) -> bool:
    """Have the guest let go of a device at a switch's port: push the slot's button until it has, or without asking, if
    `pull`. Returns whether it is gone: False where it was `given_up` before."""
    monitor, since = guest.monitor, len(guest.monitor.events)
    pressed, lit = -PRESS_AGAIN, False
    while not _deleted(guest, device, since):
        if given_up():
            return False
        try:
            indicator = guest.switch_slots.indicator(port)
            # one that was never lit says nothing: where no driver is, or the device was there at the start
            lit = lit or indicator in (Indicator.ON, Indicator.BLINKING)
            if pull or (lit and indicator is Indicator.OFF):
                guest.switch_slots.pull(port)
            elif indicator is not Indicator.BLINKING and time.monotonic() - pressed >= PRESS_AGAIN:
                monitor.execute("device_del", id=device)
                pressed = time.monotonic()
        except MonitorError as error:
            if guest.ended or "not found" in str(error):
                break
            log.info("%s: %s", port, error)
    _wait_forgotten(guest, device)
    return True


def _deleted(guest: Guest, device: str, since: int) -> bool:
    """Whether QEMU has the device no more; waits a moment for it."""
    try:
        guest.monitor.wait_event("DEVICE_DELETED", LOOK, since, lambda data: data.get("device") == device)
    except MonitorError:
        return guest.ended
    return True


def _wait_forgotten(guest: Guest, device: str) -> None:
    """Wait, not for ever, until QEMU has left the sockets of all the device's functions: it deletes one after another,
    and a function whose door closes amid a command keeps the whole machine waiting for the answer."""
    deadline = time.monotonic() + FORGETS
    with suppress(MonitorError):  # the machine has ended
        while not _forgotten(guest, device) and time.monotonic() < deadline:
            time.sleep(0.05)


def _forgotten(guest: Guest, device: str) -> bool:
    """Whether QEMU has none of a device's functions any more. Raises `MonitorError`."""
    there = [one["name"] for one in guest.monitor.execute("qom-list", path="/machine/peripheral")]
    return not any(name == device or name.startswith(f"{device}.") for name in there)
