"""Virtual CXL switches: what each of their vPPBs is bound to, and the tenant who uses them."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING
from uuid import UUID

from softcxl.device.cci import CommandError
from softcxl.pci.function import Function
from softcxl.pci.port import DownstreamPort
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.hierarchy import Hierarchy
from softcxl.switch.tenant import Nobody, Tenant

if TYPE_CHECKING:
    from softcxl.switch.binding import Operation
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.physical_port import PhysicalPort

log = logging.getLogger(__name__)


class Vppb:
    """A downstream vPPB: `port` (and `ld` of it) is what it is bound to, or what `operation` binds it to or unbinds it
    from. `function` is what the tenant has there: none where the port is empty or its link is down."""

    __slots__ = ("function", "ld", "moving", "number", "operation", "port", "virtual")

    def __init__(self, virtual: VirtualSwitch, number: int) -> None:
        self.virtual, self.number = virtual, number
        self.port: PhysicalPort | None = None
        self.ld: int | None = None
        self.function: Function | None = None
        self.operation: Operation | None = None
        self.moving = threading.RLock()  # one thread at a time gives to the tenant, or takes

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.virtual.switch.name}.{self.virtual.name}.{self.number}"

    @property
    def status(self) -> BindingStatus:
        """What the fabric manager sees of it."""
        if self.operation is not None:
            return BindingStatus.IN_PROGRESS
        if self.port is None:
            return BindingStatus.UNBOUND
        return BindingStatus.BOUND_PORT if self.ld is None else BindingStatus.BOUND_LD

    @property
    def bridge(self) -> DownstreamPort | None:
        """Its PCI function, where the tenant's hierarchy is in this process."""
        tenant = self.virtual.tenant
        return tenant.slots[self.number] if isinstance(tenant, Hierarchy) else None

    def __repr__(self) -> str:
        bound = (
            "" if self.port is None else f" {self.port.number}" + ("" if self.ld is None else f".{self.ld}")
        )
        return f"<vPPB {self.virtual.name}.{self.number} {self.status.name}{bound}>"

    # -- what the tenant has -------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Have the tenant see what is at the other end of the binding now. No lock is held."""
        with self.moving:
            wanted = None if self.port is None else self.port.function(self.ld)
            if wanted is None or self.function is not None or self.operation is not None or wanted.seat:
                return
            try:
                self.push(wanted)
            except CommandError as refused:
                log.warning("%r: the host does not take %s: %s", self, wanted, refused)

    def give(self) -> None:
        """Have the tenant get what is at the other end of the binding, if anything is. Raises `CommandError` where it
        does not take it."""
        with self.moving:
            function = None if self.port is None else self.port.function(self.ld)
            if function is not None:
                self.push(function)

    def push(self, function: Function) -> None:
        """Plug a function in at the tenant's. Raises `CommandError` where it does not take it."""
        with self.moving:
            try:
                self.virtual.tenant.plug(self.number, function)
            except CommandError:
                raise
            except Exception as error:
                log.exception("%r: the host failed", self)
                raise CommandError(ReturnCode.INTERNAL_ERROR) from error
            self.function = function

    def pull(self) -> None:
        """Take away from the tenant what it has, without notice."""
        with self.moving:
            function = self.function
            if function is not None:
                self.virtual.tenant.unplug(
                    self.number, function, UnbindOption.SURPRISE_HOT_REMOVE, lambda code: None
                )
            self.function = None

    def show_link(self) -> None:
        """The link at the physical port has gone down or come up, with what the tenant has in its place."""
        with self.moving:
            if self.function is not None and self.port is not None:
                self.virtual.tenant.link(self.number, up=self.port.link_up)


class VirtualSwitch:
    """The virtual switch `number` of a physical one, with `vppbs` downstream vPPBs. `upstream` is the number of the
    physical port that is its upstream port, and `secret` the domain validation secret of its host, once set."""

    def __init__(self, switch: PhysicalSwitch, number: int, name: str, vppbs: int, upstream: int) -> None:
        self.switch, self.number, self.name, self.upstream = switch, number, name, upstream
        self.vppbs = [Vppb(self, vppb) for vppb in range(vppbs)]
        self.secret: UUID | None = None
        self._tenant: Tenant = Nobody()

    def __repr__(self) -> str:
        return f"<virtual switch {self.name}: {len(self.vppbs)} vPPBs>"

    @property
    def tenant(self) -> Tenant:
        """Who is at its upstream port. Another one that is set finds all that is bound, and the one before loses it:
        what it was asked to let go of is gone."""
        return self._tenant

    @tenant.setter
    def tenant(self, tenant: Tenant) -> None:
        with ExitStack() as still:
            for vppb in self.vppbs:
                still.enter_context(vppb.moving)
            for vppb in self.vppbs:
                vppb.pull()
            self._change(tenant)
        for vppb in self.vppbs:
            if vppb.operation is not None:
                vppb.operation.tenant_left()
            vppb.settle()

    def _forget(self) -> None:
        """The upstream port is reset: its host has named no domain."""
        self.secret = None

    def _change(self, tenant: Tenant) -> None:
        """Hear from another tenant from now on."""
        if isinstance(self._tenant, Hierarchy):
            self._tenant.told = lambda vppb, what: None
            self._tenant.restarted = lambda: None
        self._tenant = tenant
        self._forget()
        if isinstance(tenant, Hierarchy):
            tenant.told = lambda vppb, what: self.switch.reports.slot(self.vppbs[vppb], what)
            tenant.restarted = self._forget
