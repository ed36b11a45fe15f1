"""What can go wrong between a fabric manager and an endpoint, as one small tree.

    FmError              something that was asked of an endpoint did not come about; `exit_code` is the command line's
    ├── CommandRefused   it answered with a return code that is no success: `.code`, `.command`, `.request`
    ├── EndpointRefused  it answered a control message of MCTP with a completion code that is no success: `.code`
    ├── NoAnswer         nobody listens there, the connection has ended, or no answer came in time
    ├── BadAnswer        it answered what the standard does not allow: another opcode or tag, a length that is wrong
    └── AddressError     the address is none

Every message names what was asked, and of whom.
"""

from __future__ import annotations

from softcxl.spec.command.base import ReturnCode
from softcxl.wire import Record, Register, to_plain


class FmError(Exception):
    """Something that was asked of an endpoint did not come about."""

    exit_code = 1


class CommandRefused(FmError):
    """A command was answered with a return code that is no success.

    `code` is the return code (CXL 3.1 Table 8-34), of the command or of its background operation, `vendor_status` what
    the vendor adds. `command` names what was asked (`Bind vPPB (5201h)`), `request` is its input (None: it has none),
    `target` who answered.
    """

    def __init__(
        self, command: str, request: Record | None, target: str, code: int, vendor_status: int = 0
    ) -> None:
        self.command, self.request, self.target = command, request, target
        self.code, self.vendor_status = code, vendor_status
        asked = f" of {said}" if request is not None and (said := in_words(request)) else ""
        more = f", vendor status {vendor_status:04X}h" if vendor_status else ""
        super().__init__(f"{target}: {command}{asked}: {return_code(code)}{more}")


class EndpointRefused(FmError):
    """A control message was answered with a completion code that is no success (DSP0236 1.3 Table 13): `code`."""

    def __init__(self, says: str, code: int) -> None:
        super().__init__(says)
        self.code = code


class NoAnswer(FmError):
    """Nobody listens there, the connection has ended, or no answer came in time."""

    exit_code = 3


class BadAnswer(FmError):
    """An endpoint answered what the standard does not allow."""

    exit_code = 3


class AddressError(FmError):
    """An address that is none."""

    exit_code = 2


def return_code(code: int) -> str:
    """A return code in the standard's words: `Invalid Input (0002h)`."""
    try:
        name = ReturnCode(code).name.replace("_", " ").title()
    except ValueError:
        name = "a return code that is not known"
    return f"{name} ({code:04X}h)"


def in_words(record: Record) -> str:
    """The items of a request in a line: `vcs 0, vppb 1, port 2, ld 1`."""
    return ", ".join(
        f"{item.name} {_short(getattr(record, item.name))}"
        for item in type(record).__layout__.fields
        if item.kind != "reserved" and getattr(record, item.name) != b""
    )


def _short(value: object) -> str:
    if isinstance(value, Register):
        set_ = [
            f"{field.name} {to_plain(getattr(value, field.name))}" for field in type(value).__layout__.fields
        ]
        return f"({', '.join(set_)})"
    text = str(to_plain(value))
    return text if len(text) <= 40 else f"{text[:39]}…"
