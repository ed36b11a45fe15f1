"""A guest at a host's virtual switches: what the fabric manager binds is a hot plug in another program's machine.

The program that runs the machine takes `Order`s and carries them out: "add" the device whose door is at a socket to a
port, have the guest let go of it ("remove"), or "keep" it after all, or "pull" it without asking; and have a port
report an "error". A device has left the machine when the machine has left its door, whoever has brought that about: an
order, the guest itself, or the end of the machine. Bindings stay when a guest goes, and the next one finds them.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from softcxl.device.access import AccessControl
from softcxl.device.cci import CommandError
from softcxl.device.type3 import Type3
from softcxl.fabric.errors import BuildError
from softcxl.pci.aer import status_mask
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.switch.tenant import Done, Nobody, Tenant
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.fabric.build import Fabric
    from softcxl.pci.function import Function
    from softcxl.switch.virtual import VirtualSwitch
    from softcxl.transport.vfio_user import Door

log = logging.getLogger(__name__)

GRACE = 15.0
"""Seconds that a machine has to let go of a device that was taken from it without notice."""


def port_name(virtual: str, vppb: int) -> str:
    """What the port of a vPPB is called in the guest's machine."""
    return f"{virtual}-port{vppb}"


@dataclass(frozen=True, slots=True)
class Order:
    """Something to be done in the machine. `socket` is that of the device's door, for "add", and `functions` those of
    the functions that it has beside function 0. An "error" has the bit of
    the AER status register that is to be set, in the register of `correctable` errors or in that of the others, and the
    words of the header log."""

    number: int
    act: Literal["add", "remove", "pull", "keep", "error"]
    device: str
    port: str
    socket: str = ""
    status: int = 0
    correctable: bool = False
    header: tuple[int, int, int, int] = (0, 0, 0, 0)
    functions: tuple[str, ...] = ()


@dataclass(slots=True)
class _Place:
    """A vPPB with a device below."""

    port: str
    name: str
    functions: dict[str, Function]
    doors: dict[str, Door]
    open: ExitStack
    leaving: Done | None = None
    stays: bool = False
    """A removal was given up."""
    cut: bool = False
    """The link below the vPPB is down."""
    over: bool = field(default=False)

    @property
    def connected(self) -> bool:
        """A machine has it, or a function of it."""
        return any(one.connected for one in self.doors.values())


class Visitor:
    """The guest of `host`, from `open` (or `with`) until `close`. Doors are in `folder`, as those of `Fabric.door`.

    `present` says whether somebody takes orders; until then, and when he has gone, a removal takes no time unless the
    device's door is in use. Raises `BuildError` where a virtual switch of the host is in use, or a door cannot be made.
    """

    def __init__(self, fabric: Fabric, host: str, folder: Path, *, spin_us: float = 0) -> None:
        self.fabric, self.host = fabric, host
        self.virtual = {name: fabric.virtual[name] for name in fabric.hosts[host].virtual}
        self.present = False
        self._folder, self._spin_us = folder, spin_us
        self._changed = threading.Condition()
        self._orders: list[Order] = []
        self._given: dict[int, tuple[Order, _Place]] = {}  # what is not over, by number
        self._number = 0
        self._places: dict[str, _Place] = {}
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._closing = False

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Come to the virtual switches: what is bound has a door from now on."""
        for virtual in self.virtual.values():
            if not isinstance(virtual.tenant, Nobody):
                raise BuildError(f"{virtual.name}: is in use by {self.host} already")
        if self.virtual:
            self._worker = threading.Thread(target=self._run, name=f"visitor {self.host}", daemon=True)
            self._worker.start()
        with ExitStack() as undo:
            undo.callback(self.close)
            for virtual in self.virtual.values():
                virtual.tenant = _Guest(self, virtual)
            undo.pop_all()

    def close(self) -> None:
        """The guest has gone for good: all doors of what is bound are closed. Twice does no harm."""
        with self._changed:
            self._closing = True
            self.present = False
            self._changed.notify_all()
        for virtual in self.virtual.values():
            if isinstance(virtual.tenant, _Guest) and virtual.tenant.visitor is self:
                virtual.tenant = Nobody()
        for place in list(self._places.values()):  # devices that were pulled, which the machine still has
            self._shut(place)
        if self._worker is not None:
            self._work.put(None)
            self._worker.join()
            self._worker = None

    # -- whoever runs the machine --------------------------------------------------------------------------------

    @property
    def doors(self) -> dict[str, Door]:
        """The doors of what is bound, by device."""
        with self._changed:
            return {name: door for place in self._places.values() for name, door in place.doors.items()}

    @property
    def slots(self) -> dict[str, str | None]:
        """What is below each of its vPPBs, by the name of the port in the machine."""
        with self._changed:
            names = (port_name(one.name, vppb.number) for one in self.virtual.values() for vppb in one.vppbs)
            return {name: self._places[name].name if name in self._places else None for name in names}

    def begin(self) -> dict[str, list[str | None]]:
        """What is bound now, by virtual switch and vPPB: a machine is made with it. Unless one is there already, orders
        are about what changes from now on."""
        with self._changed:
            if not self.present:
                self._orders.clear()
                self._given.clear()
            return self.bound

    @property
    def bound(self) -> dict[str, list[str | None]]:
        """What is bound now, by virtual switch and vPPB."""
        with self._changed:
            bound: dict[str, list[str | None]] = {}
            for name, virtual in self.virtual.items():
                ports = (self._places.get(port_name(name, vppb)) for vppb in range(len(virtual.vppbs)))
                bound[name] = [None if one is None or one.cut else one.name for one in ports]
            return bound

    def arrive(self) -> None:
        """Somebody takes orders from now on. Raises `BuildError` while somebody else does."""
        with self._changed:
            if self.present:
                raise BuildError(f"{self.host}: a guest of it is there already")
            self.present = True

    def leave(self) -> None:
        """Nobody takes orders any more. What is not in use goes at once, where it has to go."""
        with self._changed:
            self.present = False
            self._changed.notify_all()
            going = [one for one in self._places.values() if one.leaving and not one.connected]
        for place in going:
            self._work.put(lambda place=place: self._out(place))  # type: ignore[misc]

    def take(self, gone: Callable[[], bool], seconds: float = 20.0) -> list[Order]:
        """The orders that there are; waits for one, up to so many seconds, or until `gone` says that nobody wants them,
        which it is asked four times a second."""
        with self._changed:
            for _ in range(int(seconds * 4)):
                if self._orders or self._closing or gone():
                    break
                self._changed.wait(0.25)
            taken, self._orders = self._orders, []
            return taken

    def told(self, number: int, problem: str = "") -> None:
        """What became of an order: it has been carried out, or why it cannot be."""
        with self._changed:
            order, place = self._given.pop(number, (None, None))
        if order is None or place is None:
            if problem:
                log.warning("%s: an order could not be carried out: %s", self.host, problem)
            return
        if problem:
            log.warning("%s: %s at %s: %s", self.host, order.device, order.port, problem)
        # An arrival may be told of when the device is to go already: it is there all the same.
        if not problem and order.act in ("remove", "pull"):
            self._work.put(lambda: self._out(place))
        elif problem and order.act == "remove" and (done := self._leaves(place)) is not None:
            done(ReturnCode.RETRY_REQUIRED)

    # -- the virtual switch --------------------------------------------------------------------------------------

    def plug(self, port: str, function: Function) -> None:
        """A function has come to be below a vPPB."""
        if not isinstance(function, Type3 | AccessControl):
            # a guest's switches are QEMU's, and take devices alone
            raise CommandError(ReturnCode.UNSUPPORTED)
        if port in self._places:
            raise CommandError(ReturnCode.RETRY_REQUIRED)  # the machine has not let go of what was there
        opened = ExitStack()
        place: list[_Place] = []
        parts = {function.name: function, **self.fabric.parts(function.name)}
        try:
            doors = {
                name: opened.enter_context(
                    self.fabric.door(
                        self.host,
                        name,
                        self._folder,
                        spin_us=self._spin_us,
                        bound=True,
                        left=lambda: self._work.put(lambda: self._left(place)),
                    )
                )
                for name in parts
            }
        except BuildError as error:
            opened.close()
            log.warning("%s: %s cannot be plugged in: %s", self.host, function.name, error)
            raise CommandError(ReturnCode.RETRY_REQUIRED) from error
        with self._changed:
            place.append(_Place(port, function.name, parts, doors, opened))
            self._places[port] = place[0]
            self._order("add", place[0])

    def unplug(self, port: str, option: UnbindOption, done: Done) -> None:
        """It is to go."""
        place = self._places.get(port)
        if place is None:
            done(ReturnCode.SUCCESS)
            return
        if self._closing:
            self._shut(place)
            done(ReturnCode.SUCCESS)
            return
        if option is UnbindOption.SURPRISE_HOT_REMOVE:
            for one in place.functions.values():
                one.silence()
            self.fabric.clock.call_later(GRACE, lambda: self._work.put(lambda: self._out(place)))
        with self._changed:
            place.leaving, place.stays = done, False
            if self.present or place.connected:
                self._order("pull" if option is UnbindOption.SURPRISE_HOT_REMOVE else "remove", place)
                return
        self._work.put(lambda: self._out(place))

    def keep(self, port: str) -> bool:
        """A removal is given up; False where it is over, or about to be."""
        with self._changed:
            place = self._places.get(port)
            if place is None or place.leaving is None:
                return False
            place.leaving, place.stays = None, True
            self._order("keep", place)
            return True

    def link(self, port: str, *, up: bool) -> None:
        """The link below a vPPB is another: a machine has no such thing, and loses the device or gets it back."""
        with self._changed:
            place = self._places.get(port)
            if place is not None and place.cut is up:
                place.cut = not up
                self._order("add" if up else "pull", place)

    def error(self, port: str, name: str, *, correctable: bool, header: int) -> None:
        """A port, or the upstream port, which has the name of its virtual switch, reports an error."""
        mask = status_mask(name, correctable=correctable)
        words = tuple(header >> shift & 0xFFFFFFFF for shift in (0, 32, 64, 96))
        with self._changed:
            if not self.present:
                raise CommandError(ReturnCode.RETRY_REQUIRED)  # no machine runs that could report it
            self._number += 1
            self._orders.append(
                Order(self._number, "error", "", port, status=mask, correctable=correctable, header=words)  # type: ignore[arg-type]
            )
            self._changed.notify_all()

    # -- the devices ---------------------------------------------------------------------------------------------

    def _order(self, act: Literal["add", "remove", "pull", "keep"], place: _Place) -> None:
        """The lock is held."""
        self._number += 1
        socket, *more = [str(door.path) for door in place.doors.values()] if act == "add" else [""]
        order = Order(self._number, act, place.name, place.port, socket, functions=tuple(more))
        self._orders.append(order)
        self._given[self._number] = order, place
        self._changed.notify_all()

    def _left(self, at: list[_Place]) -> None:
        """The machine has left the device's door."""
        if not at:
            return
        place = at[0]
        if place.connected:
            return  # by another function's door
        if place.leaving is not None:
            self._out(place)
            return
        with self._changed:
            if place.stays and self.present and not place.over:  # it went when it had been given up
                place.stays = False
                self._order("add", place)

    def _out(self, place: _Place) -> None:
        """No machine has the device any more."""
        done = self._leaves(place)
        if done is None:
            return
        self._shut(place)
        for function in place.functions.values():
            if isinstance(function, Type3):
                self.fabric.hosts[self.host].unbound(function)
        done(ReturnCode.SUCCESS)
        for virtual in self.virtual.values():
            for vppb in virtual.vppbs:
                if port_name(virtual.name, vppb.number) == place.port:
                    vppb.settle()  # what has come meanwhile had no place

    def _leaves(self, place: _Place) -> Done | None:
        """Who waits for it to go; nobody does any more."""
        with self._changed:
            done, place.leaving = place.leaving, None
            return done

    def _shut(self, place: _Place) -> None:
        with self._changed:
            if place.over:
                return
            place.over = True
            if self._places.get(place.port) is place:
                del self._places[place.port]
            over = [number for number, (_, one) in self._given.items() if one is place]
            for number in over:
                del self._given[number]
            self._orders = [one for one in self._orders if one.number not in over]
        try:
            place.open.close()
        finally:
            for one in place.functions.values():
                if one.silent:
                    one.wake(Reset.HOT)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("%s: a device could not be taken out; a bug", self.host)


class _Guest(Tenant):
    """The guest, for one of its virtual switches."""

    def __init__(self, visitor: Visitor, virtual: VirtualSwitch) -> None:
        self.visitor = visitor
        self._name = virtual.name

    @property
    def link_up(self) -> bool:
        return self.visitor.present or any(one.connected for one in self.visitor.doors.values())

    def plug(self, vppb: int, function: Function) -> None:
        self.visitor.plug(port_name(self._name, vppb), function)

    def unplug(self, vppb: int, function: Function, option: UnbindOption, done: Done) -> None:
        self.visitor.unplug(port_name(self._name, vppb), option, done)

    def keep(self, vppb: int, function: Function) -> bool:
        return self.visitor.keep(port_name(self._name, vppb))

    def link(self, vppb: int, *, up: bool) -> None:
        self.visitor.link(port_name(self._name, vppb), up=up)

    def error(self, vppb: int | None, name: str, *, correctable: bool, header: int) -> None:
        port = self._name if vppb is None else port_name(self._name, vppb)
        self.visitor.error(port, name, correctable=correctable, header=header)
