"""Data Object Exchange: a mailbox in configuration space that carries requests and responses a dword at a time."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from softcxl.pci.function import Function
from softcxl.spec.pci.doe import (
    MAX_DWORDS,
    VENDOR_PCI_SIG,
    DataObjectHeader,
    DataObjectType,
    DiscoveryRequest,
    DiscoveryResponse,
)
from softcxl.spec.pci.extended import DataObjectExchange
from softcxl.wire import Reset, WireError, on_write

Protocol = Callable[[bytes], bytes | None]
"""Takes a request's body and returns the response's body, or None where the object gets no response."""

_HEADER = DataObjectHeader.__layout__.size
_UNKNOWN = DiscoveryResponse(vendor_id=0xFFFF, object_type=0xFF, next_index=0)


class DoeMailbox:
    """One DOE instance of `function`, serving `protocols` by (vendor, object type), and Discovery.

    A function may have several, each at its own place. Objects are answered at once, so `busy` is never seen
    set; responses queue up until they are read. An object of unknown type or of another length than it says is
    dropped without an answer (PCIe 6.0 §6.30.1). Writing more than 2^18 dwords, and moving on past the last
    dword of a response, set the error bit: then nothing is taken or answered until an abort.
    """

    def __init__(self, function: Function, protocols: dict[tuple[int, int], Protocol]) -> None:
        self.protocols = {(VENDOR_PCI_SIG, int(DataObjectType.DISCOVERY)): self._discover, **protocols}
        self.answered: Callable[[], None] | None = None  # whoever counts objects
        self._written: list[int] = []
        self._waiting: deque[int] = deque()
        self.registers = function.add_extended(DataObjectExchange, hooks=self)
        function.parts.append(self)

    def reset(self, kind: Reset) -> None:
        """Drop what is under way; the registers themselves are configuration space's to reset."""
        self._drop()

    def _drop(self) -> None:
        self._written.clear()
        self._waiting.clear()
        self._show()

    def _show(self) -> None:
        self.registers.status.data_object_ready = bool(self._waiting)
        self.registers.read_mailbox.value = self._waiting[0] if self._waiting else 0

    @on_write(DataObjectExchange.write_mailbox)
    def _append(self, old: int, new: int) -> None:
        self.registers.write_mailbox.value = 0
        status = self.registers.status
        if status.error:
            return
        if len(self._written) == MAX_DWORDS:
            status.error = True
        else:
            self._written.append(new)

    @on_write(DataObjectExchange.read_mailbox)
    def _next(self, old: int, new: int) -> None:
        if self._waiting:
            self._waiting.popleft()
            self._show()
        else:
            self.registers.status.error = True

    @on_write(DataObjectExchange.control)
    def _command(self, old: int, new: int) -> None:
        control, status = self.registers.control, self.registers.status
        abort, go = control.abort, control.go
        control.abort = control.go = False
        if abort:
            status.error = False
            self._drop()
        elif go and not status.error:
            request = struct.pack(f"<{len(self._written)}I", *self._written)
            self._written.clear()
            response = self._answer(request)
            if response and self.answered is not None:
                self.answered()
            self._waiting.extend(struct.unpack(f"<{len(response) // 4}I", response))
            self._show()

    def _answer(self, request: bytes) -> bytes:
        """The whole response object, or nothing where there is none."""
        try:
            header = DataObjectHeader.unpack_from(request)
        except WireError:
            return b""
        length = header.length & MAX_DWORDS - 1 or MAX_DWORDS
        protocol = self.protocols.get((header.vendor_id, header.object_type))
        if protocol is None or 4 * length != len(request):
            return b""
        body = protocol(request[_HEADER:])
        if body is None:
            return b""
        body += bytes(-len(body) % 4)
        return header.replace(length=(_HEADER + len(body)) // 4 % MAX_DWORDS).pack() + body

    def _discover(self, body: bytes) -> bytes | None:
        try:
            request = DiscoveryRequest.unpack(body)
        except WireError:
            return None
        known = list(self.protocols)
        if request.index >= len(known):
            return _UNKNOWN.pack()
        vendor, kind = known[request.index]
        following = request.index + 1 if request.index + 1 < len(known) else 0
        return DiscoveryResponse(vendor_id=vendor, object_type=kind, next_index=following).pack()
