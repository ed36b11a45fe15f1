"""Errors: how a function logs what went wrong, and tells the root (PCIe 6.0 §6.2)."""

from __future__ import annotations

import enum
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple, Protocol

from softcxl.spec.pci.extended import AdvancedErrorReporting, CorrectableErrorStatus, UncorrectableErrorStatus

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from softcxl.pci.bus import Seat
    from softcxl.spec.pci.express import PciExpress
    from softcxl.spec.pci.header import CommonHeader


class Kind(enum.Enum):
    """Error messages (PCIe 6.0 §2.2.8.3)."""

    CORRECTABLE = "ERR_COR"
    NON_FATAL = "ERR_NONFATAL"
    FATAL = "ERR_FATAL"


class Message(NamedTuple):
    """An error message, with the requester ID of the function that sent it."""

    kind: Kind
    source: int


class Reporter(Protocol):
    """A function with Advanced Error Reporting."""

    @property
    def header(self) -> CommonHeader: ...

    @property
    def express(self) -> PciExpress: ...

    @property
    def seat(self) -> Seat | None: ...

    @property
    def aer(self) -> AdvancedErrorReporting: ...

    @property
    def lock(self) -> AbstractContextManager[object]: ...

    def emit(self, message: Message) -> None:
        """Send an error message of one's own."""


_CORRECTABLE = {field.name: field.mask for field in CorrectableErrorStatus.__layout__.fields}
_UNCORRECTABLE = {field.name: field.mask for field in UncorrectableErrorStatus.__layout__.fields}


def status_mask(name: str, *, correctable: bool) -> int:
    """The bit of an error in its AER status register, by the name of its field."""
    return (_CORRECTABLE if correctable else _UNCORRECTABLE)[name]


def report(
    function: Reporter, error: str, *, correctable: bool = False, header: int = 0, fatal: bool = True
) -> Kind | None:
    """Log an error by the name of its field in the AER status register, and send the message that is due.

    `header` is the header of the TLP at fault, 128 bits. With `fatal` clear an uncorrectable error is not fatal,
    whatever the severity register says. Returns the kind of message that was sent, None where
    masks or enables kept it. Raises `ValueError` for an unknown error. Safe from any thread that does not hold the
    function's lock: the machine's comes first.
    """
    known = _CORRECTABLE if correctable else _UNCORRECTABLE
    if error not in known:
        raise ValueError(f"error {error!r}: known are {', '.join(known)}")
    seat = function.seat
    with nullcontext() if seat is None else seat.bus.lock:
        with function.lock:
            if correctable:
                kind = _log_correctable(function, error)
            else:
                kind = _log_uncorrectable(function, error, header, fatal)
        if kind is not None:
            function.emit(Message(kind, 0 if seat is None else seat.requester_id))
    return kind


def _log_correctable(function: Reporter, error: str) -> Kind | None:
    status, mask = function.aer.correctable_status, _CORRECTABLE[error]
    status.assign(int(status) | mask)
    function.express.device_status.correctable_error_detected = True
    if int(function.aer.correctable_mask) & mask:
        return None
    return Kind.CORRECTABLE if function.express.device_control.correctable_error_reporting else None


def _log_uncorrectable(function: Reporter, error: str, header: int, fatal: bool) -> Kind | None:
    aer, mask = function.aer, _UNCORRECTABLE[error]
    control, status = function.express.device_control, function.express.device_status
    fatal = fatal and bool(int(aer.uncorrectable_severity) & mask)
    masked = bool(int(aer.uncorrectable_mask) & mask)
    first = not int(aer.uncorrectable_status) & ~int(aer.uncorrectable_mask)
    aer.uncorrectable_status.assign(int(aer.uncorrectable_status) | mask)
    if fatal:
        status.fatal_error_detected = True
    else:
        status.non_fatal_error_detected = True
    if masked:
        return None
    if first:
        aer.control.first_error_pointer = mask.bit_length() - 1
        aer.header_log.value = header
    serr = function.header.command.serr_enable
    enabled = control.fatal_error_reporting if fatal else control.non_fatal_error_reporting
    if not (serr or enabled):
        return None
    if serr:
        function.header.status.signaled_system_error = True
    return Kind.FATAL if fatal else Kind.NON_FATAL
