"""Binding vPPBs to physical ports and logical devices, and unbinding them (CXL 3.1 §7.6.7.2).

Each is an `Operation`: made, it has checked that it can be and has the vPPB and its target to itself; `run` does it.
It ends with a return code, in `run` or, where a host has to let go of a device first, later. What fails leaves all as
it was.

Locks, each before the next: that of commands, of a port's registers, of what a vPPB gives to its host (`moving`), of
a host's machine, of what a port holds, of a function; and the switch's, held for moments, by whoever holds no matter
which other. Tenants, devices and observers are called without the switch's. So a host's machine, whose lock is held as
it turns a slot's power off, can end an operation.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from softcxl.device.cci import CommandError
from softcxl.device.clock import Timer
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import UnbindOption

if TYPE_CHECKING:
    from softcxl.switch.physical import PhysicalSwitch
    from softcxl.switch.physical_port import PhysicalPort
    from softcxl.switch.virtual import Vppb

log = logging.getLogger(__name__)


class BindingError(CommandError):
    """A vPPB is not bound or unbound: `code` says so to a fabric manager, the message to people."""

    def __init__(self, message: str, code: ReturnCode = ReturnCode.INVALID_INPUT) -> None:
        super().__init__(code)
        self.args = (message,)


@dataclass(frozen=True, slots=True)
class BindingChange:
    """vPPB `vppb` of virtual switch `vcs` of `switch` is bound to physical `port`, to its logical device `ld` if one is
    named; or, with `bound` clear, unbound from it, the way `option` says."""

    switch: str
    vcs: int
    vppb: int
    port: int
    ld: int | None
    bound: bool
    option: UnbindOption | None = None

    def __str__(self) -> str:
        what = f"port {self.port}" if self.ld is None else f"LD {self.ld} of port {self.port}"
        verb = "binding" if self.bound else "unbinding"
        return f"{self.switch}: {verb} vPPB {self.vppb} of VCS {self.vcs}, {what}"


class Observer(Protocol):
    """Who is told of binding changes, as a journal is. Called by one thread at a time for each vPPB."""

    def before(self, change: BindingChange) -> None:
        """It is about to be made. What this raises keeps it from being made."""

    def after(self, change: BindingChange, code: ReturnCode) -> None:
        """It has been made (Success), or has failed with another code, and all is as before. The vPPB is not free for
        another change yet. What this raises at Success has it taken back, and this is called again."""


class Operation:
    """A binding change under way. `code` is None until it has ended, and then `ended` are called."""

    def __init__(self, switch: PhysicalSwitch, vppb: Vppb, change: BindingChange) -> None:
        self.switch, self.vppb, self.change = switch, vppb, change
        self.code: ReturnCode | None = None
        self.problem = ""  # why it failed, for people
        self.ended: list[Callable[[], None]] = []
        self._over = threading.Event()
        self._decided = False
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.change}: {'under way' if self.code is None else self.code.name}>"
        )

    def _begin(self) -> None:
        """The vPPB is ours: tell who wants to know, or give it back."""
        told: list[Observer] = []
        try:
            for observer in self.switch.observers:
                observer.before(self.change)
                told.append(observer)
        except Exception as error:
            self._decided = True
            self._tell(ReturnCode.INTERNAL_ERROR, told)
            self._leave()
            _complain(self.change, error)
            raise BindingError(
                f"the change could not be written down: {error}", ReturnCode.INTERNAL_ERROR
            ) from error

    def _decide(self) -> bool:
        """Whether it is still open how it ends: from now on it is not."""
        with self.switch.lock:
            decided, self._decided = self._decided, True
        if not decided and self._timer is not None:
            self._timer.cancel()
        return not decided

    def _leave(self) -> None:
        """Give the vPPB and its target back as they were."""
        raise AssertionError("of Bind and Unbind")

    def _tell(self, code: ReturnCode, observers: Iterable[Observer] | None = None) -> bool:
        """Tell who wants to know how it ends; whether nobody objects. The vPPB is still ours: whoever changes it next
        tells them later."""
        kept = True
        for observer in self.switch.observers if observers is None else observers:
            try:
                observer.after(self.change, code)
            except Exception as error:  # noqa: BLE001  whatever it is, the vPPB must not stay as it is
                _complain(self.change, error)
                kept = False
        return kept

    def _fail(self, code: ReturnCode) -> None:
        """It ends, and leaves all as it was."""
        self._tell(code)
        self._leave()
        self._end(code)

    def _end(self, code: ReturnCode) -> None:
        """It is over, with all in place."""
        self.switch.reports.binding(self.vppb, failed=code != ReturnCode.SUCCESS)
        self.code = code
        self._over.set()
        for tell in self.ended:
            tell()

    @property
    def prompt(self) -> bool:
        """It has ended, or ends as soon as it is run."""
        return self.code is not None

    def wait(self, timeout: float | None = None) -> ReturnCode | None:
        """The return code it ends with; None if it has not after `timeout` seconds."""
        self._over.wait(timeout)
        return self.code

    def run(self) -> None:
        """Do it, or set about it."""
        raise AssertionError("of Bind and Unbind")

    def give_up(self, code: ReturnCode) -> None:
        """Leave it, if it has not ended: it ends with this code, and all stays as it was."""

    def link_down(self) -> None:
        """The link at the physical port has gone down."""

    def tenant_left(self) -> None:
        """The host that would have to answer has gone."""


class Bind(Operation):
    """Bind vPPB `vppb` of `vcs` to `port`, or to LD `ld` of it. Raises `BindingError`: Invalid Input for what is not
    there, bound already, upstream, disabled, or an LD that is asked for where there is none, or not where there are
    some; Busy for what is being changed."""

    def __init__(self, switch: PhysicalSwitch, vcs: int, vppb: int, port: int, ld: int | None) -> None:
        with switch.lock:
            found = switch.vppb(vcs, vppb)
            target = switch.ports.get(port)
            if target is None:
                raise BindingError(
                    f"{switch.name} has no physical port {port}; there are {len(switch.ports)}"
                )
            _bindable(found, target, ld)
            if ld is not None and not target.multi_logical:
                raise BindingError(f"{target.name} has no logical devices: LD {ld} cannot be bound")
            if ld is None and target.multi_logical:
                raise BindingError(f"{target.name} has a device of logical devices: an LD ID is needed")
            super().__init__(switch, found, BindingChange(switch.name, vcs, vppb, port, ld, bound=True))
            found.port, found.ld, found.operation = target, ld, self
            target.bindings[ld] = found
        try:
            target.hold(ld, found.name)
            if ld is not None and target.held(ld) is None:
                raise BindingError(f"{target.name} has no LD {ld} with memory")
        except Exception as error:
            with switch.lock:
                _unbound(found)
            if isinstance(error, BindingError):
                raise
            if isinstance(error, ValueError):
                raise BindingError(str(error)) from None
            log.exception("%s: the device failed to be bound", found.name)
            raise BindingError(f"{target.name}: {error}", ReturnCode.INTERNAL_ERROR) from error
        self._begin()

    @property
    def prompt(self) -> bool:
        return True

    def run(self) -> None:
        if not self._decide():
            return
        vppb = self.vppb
        try:
            vppb.give()
        except CommandError as refused:
            self.problem = "its host does not take the device"
            self._fail(refused.code)
            return
        if not self._tell(ReturnCode.SUCCESS):
            self.problem = "the change could not be written down"
            vppb.pull()
            self._fail(ReturnCode.INTERNAL_ERROR)
            return
        with self.switch.lock:
            vppb.operation = None
        vppb.settle()  # the link may have changed meanwhile
        self._end(ReturnCode.SUCCESS)

    def give_up(self, code: ReturnCode) -> None:
        if self._decide():
            self._fail(code)

    def _leave(self) -> None:
        port, ld = self.vppb.port, self.vppb.ld
        if port is not None:
            port.release(ld, used=False)
        with self.switch.lock:
            _unbound(self.vppb)


class Unbind(Operation):
    """Unbind vPPB `vppb` of `vcs`. Surprise: at once. Managed: when the host has let go of the device. Or when the
    link at the physical port goes down. It is given up after the switch's `patience`, or where the host refuses:
    Retry Required. Raises `BindingError`: Invalid Input for what is not there or not bound, Busy for what is being
    changed."""

    def __init__(self, switch: PhysicalSwitch, vcs: int, vppb: int, option: UnbindOption) -> None:
        with switch.lock:
            found = switch.vppb(vcs, vppb)
            if found.operation is not None:
                raise BindingError(
                    f"vPPB {vppb} of {found.virtual.name} is being changed already", ReturnCode.BUSY
                )
            if found.port is None:
                raise BindingError(f"vPPB {vppb} of {found.virtual.name} is not bound")
            change = BindingChange(
                switch.name, vcs, vppb, found.port.number, found.ld, bound=False, option=option
            )
            super().__init__(switch, found, change)
            self.option = option
            found.operation = self
        self._begin()

    def run(self) -> None:
        if self._decided:
            return
        with self.vppb.moving:  # from here on nothing is given to the host
            function = self.vppb.function
        if function is None:
            self._done(ReturnCode.SUCCESS)
            return
        if self.option is not UnbindOption.SURPRISE_HOT_REMOVE:
            self._timer = self.switch.clock.call_later(
                self.switch.patience, lambda: self.give_up(ReturnCode.RETRY_REQUIRED)
            )
        if self.option is UnbindOption.WAIT_FOR_LINK_DOWN:
            self.link_down()
            return
        self._ask(self.option)

    def _ask(self, option: UnbindOption) -> None:
        """Have the host let go of what it has there."""
        vppb, function = self.vppb, self.vppb.function
        if function is None:
            self._done(ReturnCode.SUCCESS)
            return
        try:
            vppb.virtual.tenant.unplug(vppb.number, function, option, self._done)
        except CommandError as refused:
            self._done(refused.code)
        except Exception:
            log.exception("%r: the host failed", self)
            self._done(ReturnCode.INTERNAL_ERROR)

    def _done(self, code: ReturnCode) -> None:
        """The tenant has let go, or will not."""
        vppb = self.vppb
        if not self._decide():
            return
        if code != ReturnCode.SUCCESS:
            self._fail(code)
            return
        vppb.function = None
        port, ld = vppb.port, vppb.ld
        if port is not None:
            port.release(ld)
        # What is to be gone is gone before it is written down: a crash between the two leaves no contents to the next.
        if not self._tell(ReturnCode.SUCCESS) and port is not None and self._again(port):
            self._fail(ReturnCode.INTERNAL_ERROR)
            self.switch.clock.call_later(0, vppb.settle)  # the host's lock may be held now, which comes later
            return
        with self.switch.lock:
            _unbound(vppb)
        self._end(ReturnCode.SUCCESS)

    def _again(self, port: PhysicalPort) -> bool:
        """Take back what was let go of; False where another head's host has it already."""
        try:
            port.hold(self.vppb.ld, self.vppb.name)
        except ValueError:
            return False
        return True

    def give_up(self, code: ReturnCode) -> None:
        vppb, asked = self.vppb, self.option is UnbindOption.MANAGED_HOT_REMOVE
        function = None if self._decided else vppb.function
        if asked and function is not None and not vppb.virtual.tenant.keep(vppb.number, function):
            return  # it ends as the host has let go
        if self._decide():
            self._fail(code)

    def link_down(self) -> None:
        port = self.vppb.port
        if self.vppb.function is None:
            self._done(ReturnCode.SUCCESS)
        elif self.option is UnbindOption.WAIT_FOR_LINK_DOWN and port is not None and not port.link_up:
            self._ask(UnbindOption.SURPRISE_HOT_REMOVE)

    def tenant_left(self) -> None:
        self._done(ReturnCode.SUCCESS)

    def _leave(self) -> None:
        with self.switch.lock:
            self.vppb.operation = None


def _complain(change: BindingChange, error: Exception) -> None:
    """Of an observer: a full disk is a sentence, anything else a bug."""
    if isinstance(error, OSError):
        log.warning("%s: %s", change, error)
    else:
        log.error("%r: an observer failed", change, exc_info=error)


def _bindable(vppb: Vppb, target: PhysicalPort, ld: int | None) -> None:
    """Both ends are free. The switch's lock is held."""
    if vppb.operation is not None:
        raise BindingError(f"{vppb!r} is being changed already", ReturnCode.BUSY)
    if vppb.port is not None:
        raise BindingError(f"{vppb!r} is bound already")
    if target.virtual is not None:
        raise BindingError(f"{target.name} is an upstream port: no vPPB can be bound to it")
    if not target.enabled:
        raise BindingError(f"{target.name} is disabled")
    taken = target.bindings.get(ld) or target.bindings.get(None)
    if taken is None and ld is None and target.bindings:
        taken = next(iter(target.bindings.values()))
    if taken is not None:
        code = ReturnCode.INVALID_INPUT if taken.operation is None else ReturnCode.BUSY
        raise BindingError(f"{target.name} is bound already: {taken!r}", code)


def _unbound(vppb: Vppb) -> None:
    """The switch's lock is held."""
    if vppb.port is not None:
        vppb.port.bindings.pop(vppb.ld, None)
    vppb.port = vppb.ld = vppb.operation = None
