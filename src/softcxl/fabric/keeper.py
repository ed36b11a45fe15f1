"""Keeps a live fabric and its store together: writes down what happens, and brings back what was.

It is told by the observers of physical switches, and by the witnesses of switches and dynamic capacity.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from softcxl.device.dynamic.extents import Extent
from softcxl.device.mld.logical import LogicalDevice
from softcxl.fabric.errors import StateUnwritable
from softcxl.fabric.store import WHOLE, Binding, Store, Vppb
from softcxl.spec.command.base import ReturnCode
from softcxl.switch.binding import BindingChange, BindingError
from softcxl.switch.occupant import function, name_of

if TYPE_CHECKING:
    from softcxl.device.dynamic.capacity import DynamicCapacity
    from softcxl.device.mld.device import LdChange, MultiLogicalDevice
    from softcxl.device.type3 import Type3
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.physical_port import PhysicalPort

log = logging.getLogger(__name__)

Target = tuple[int, int | None]
"""What a vPPB is bound to: a physical port, and the LD of what is in it, or None."""

_SHOWN: Final = 16  # extents of one offer or answer that the journal names


First = Mapping[str, Mapping[str, Sequence[Target | None]]]
"""What vPPBs are bound to when they are here for the first time, by switch and virtual switch."""


def keep(
    store: Store,
    switches: Mapping[str, PhysicalSwitch],
    mlds: Mapping[str, MultiLogicalDevice],
    devices: Mapping[str, Type3],
    first: First,
) -> list[str]:
    """Keep the parts of a fabric in `store` from now on, after what was has been restored. Returns what could not be,
    a sentence each."""
    keeper = Keeper(store, switches)
    problems = keeper.restore(first)
    for mld in mlds.values():
        keeper.watch_pool(mld)
        if mld.dynamic is not None:
            keeper.watch_extents(mld.name, mld.dynamic)
    for name, device in devices.items():
        if device.dynamic.regions and not isinstance(device, LogicalDevice):
            keeper.watch_extents(name, device.dynamic)
    return problems


class Keeper:
    """Keeps `switches` (by name) in `store`. `restore` first; then every change is written down."""

    def __init__(self, store: Store, switches: Mapping[str, PhysicalSwitch]) -> None:
        self.store, self._switches = store, switches

    # -- what was ------------------------------------------------------------------------------------------------

    def restore(self, first: First) -> list[str]:
        """Undo what the last server had begun and not made, bind what was bound, and what `first` says, by switch and
        virtual switch, for those that are here for the first time.

        Returns what could not be, a sentence each; it is logged and in the journal. Raises `StateUnwritable`.
        """
        store, problems = self.store, []
        with store.database.transaction():
            store.recover()
            for binding in store.bindings():
                if reason := self._bind_again(binding):
                    problems.append(f"{binding} cannot be restored: {reason}")
                    store.journal.add(
                        "binding-not-restored", str(binding.place), target=binding.target, reason=reason
                    )
            for name, switch in self._switches.items():
                switch.observers.append(self)
                switch.witness = self._port_witness(switch)
                for vcs, virtual in switch.virtual.items():
                    if not store.meet(name, virtual.name):
                        continue
                    for vppb, target in enumerate(first.get(name, {}).get(virtual.name, ())):
                        if target is None:
                            continue
                        try:
                            switch.bind(vcs, vppb, *target)
                        except BindingError as error:
                            problems.append(
                                f"{Vppb(name, virtual.name, vppb)} cannot be bound at first: {error}"
                            )
        for problem in problems:
            log.warning("%s", problem)
        return problems

    def _bind_again(self, binding: Binding) -> str:
        """Why not, or nothing if it is bound."""
        place = binding.place
        switch = self._switches.get(place.switch)
        if switch is None:
            return f"there is no switch {place.switch}"
        vcs = next((number for number, one in switch.virtual.items() if one.name == place.vcs), None)
        if vcs is None:
            return f"{place.switch} has no virtual switch {place.vcs}"
        port = switch.ports.get(binding.port)
        if port is None or port.virtual is not None:
            return f"{place.switch} has no downstream port {binding.port}"
        ld = None if binding.ld == WHOLE else binding.ld
        found = _name(port, ld)
        if binding.device not in (None, found):
            there = found or (name_of(port.device) if port.device else "nothing")
            return f"port {binding.port} has {there} in it now"
        try:
            switch.bind(vcs, place.vppb, binding.port, ld)
        except BindingError as error:
            return str(error)
        return ""

    # -- what happens: bindings, as an observer of switches ------------------------------------------------------

    def before(self, change: BindingChange) -> None:
        """It is written ahead. Raises `StateUnwritable`: then it is not made."""
        if change.bound:
            self.store.begin(self._binding(change))
        else:
            self.store.begin_undoing(self._binding(change), option=_word(change.option))

    def after(self, change: BindingChange, code: ReturnCode) -> None:
        """It is written again. Raises `StateUnwritable`: then it is taken back."""
        binding, made = self._binding(change), code is ReturnCode.SUCCESS
        if made:
            (self.store.made if change.bound else self.store.undone)(binding)
        else:
            (self.store.failed if change.bound else self.store.not_undone)(binding, code=_word(code))

    def _binding(self, change: BindingChange) -> Binding:
        switch = self._switches[change.switch]
        place = Vppb(change.switch, switch.virtual[change.vcs].name, change.vppb)
        ld = WHOLE if change.ld is None else change.ld
        if not change.bound and (kept := self.store.binding(place)):
            return kept  # with the name of what was bound, whatever has become of it
        return Binding(place, change.port, _name(switch.ports[change.port], change.ld), ld)

    # -- what happens: to ports and devices ----------------------------------------------------------------------

    def watch_extents(self, name: str, capacity: DynamicCapacity) -> None:
        """Have in the journal what happens to the extents of the device with that name."""

        def witness(what: str, host: int, extents: Sequence[Extent]) -> None:
            shown = [
                {"start": one.start, "length": one.length, "tag": one.tag.hex} for one in extents[:_SHOWN]
            ]
            self._note(f"extents-{what}", name, host=host, extents=shown, count=len(extents))

        capacity.witness = witness

    def watch_pool(self, device: MultiLogicalDevice) -> None:
        """Have in the journal what becomes of `device` and its logical devices."""

        def witness(change: LdChange) -> None:
            size = change.new.capacity if change.new else None
            self._note(
                "ld-allocated" if size else "ld-freed",
                f"{device.name}.{change.ld}",
                volatile=size.volatile if size else 0,
                persistent=size.persistent if size else 0,
            )

        device.listeners.append(witness)
        device.witness = self._note

    def _port_witness(self, switch: PhysicalSwitch) -> Callable[[str, PhysicalPort], None]:
        def witness(what: str, port: PhysicalPort) -> None:
            device = "" if port.device is None else name_of(port.device)
            self._note(what, f"{switch.name}.{port.number}", device=device)

        return witness

    def _note(self, kind: str, subject: str, **detail: Any) -> None:
        """What is no change of what is kept here: the journal may miss it, nobody else does."""
        try:
            self.store.journal.add(kind, subject, **detail)
        except StateUnwritable as error:
            log.warning("%s of %s is not in the journal: %s", kind, subject, error)


def _name(port: PhysicalPort, ld: int | None) -> str | None:
    """What a binding leads to, whether or not the link is up."""
    found = function(port.device, ld)
    return None if found is None else name_of(found)


def _word(value: ReturnCode | object) -> str:
    return str(getattr(value, "name", value)).lower().replace("_", "-")
