"""Function 0 of a pool access device: registers to connect, ask and ring by, and interrupts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from softcxl.device.access.machine import Files, Machine, Remembered
from softcxl.device.access.server import AccessServer, Memory, Visitor
from softcxl.pci.function import Function
from softcxl.pci.region import INTX, MSI, Bus
from softcxl.spec.cxl.dvsec import VENDOR_CXL
from softcxl.spec.pci.header import CommonHeader
from softcxl.spec.pool_access import (
    ACCESS_CONTROL_ID,
    CLASS_OTHER_PERIPHERAL,
    ENTRY_NAME_OFFSET,
    ENTRY_NAME_SIZE,
    ENTRY_SIZE,
    MOST_MEMORIES,
    NEWS,
    PAYLOAD_OFFSET,
    PAYLOAD_SIZE,
    REGISTERS_SIZE,
    TABLE_OFFSET,
    VECTORS,
    AccessRegisters,
    MemoryEntry,
    vector_of,
)
from softcxl.wire import RegisterFile, Reset, on_read, on_write

log = logging.getLogger(__name__)

NOT_SERVED, MALFORMED, FAILED = 9, 1, 10
"""Statuses that the device gives by itself; what they are called is in `softcxl.pool.protocol.Status`."""

_BAR = 0
_INTA = 1
_LOOK = 0.02  # seconds from one look at what a machine maps to the next, twice as many each time after that,
_RARELY = 0.25  # and so many at most
_VECTORS_LOG2 = VECTORS.bit_length() - 1


class AccessControl(Function):
    """The registers of the pool access device called `name`.

    It interrupts by MSI with a vector for each 31st of the arena's lines, or, where software has not enabled that, by
    INTx. For INTx, Interrupt Status is set whenever a vector is enabled, because whether a virtual machine's line is
    still asserted cannot be known here; an interrupt has been taken when software sets Interrupt Disable, and whatever
    is rung from then on interrupts when it clears that again. So one that nobody sees cannot be lost, and a second look
    is all that one costs which nothing has rung.
    """

    vectors: ClassVar = {"msi": VECTORS}

    def __init__(self, name: str, remembered: Remembered) -> None:
        super().__init__(
            vendor_id=VENDOR_CXL,
            device_id=ACCESS_CONTROL_ID,
            class_code=CLASS_OTHER_PERIPHERAL,
            interrupts="msi",
        )
        self.name = name
        self.visitor = Visitor(name, "")
        self._server: AccessServer | None = None
        self._here = False  # a program has come by this device since the last reset
        self.files: Files = frozenset()
        """The memories."""
        self.lingering: dict[Visitor, Machine] = {}
        """From whom the device was taken, and who map memory yet."""
        self._machine: Machine | None = None
        self._remembered, self._remembering = remembered, threading.Lock()
        assert self.msi is not None
        self.msi.control.multiple_message_capable = _VECTORS_LOG2
        self.header.interrupt_pin.value = _INTA
        self._file = RegisterFile(REGISTERS_SIZE)
        self.registers = self._file.place(0, AccessRegisters, hooks=self)
        self._file.ram(PAYLOAD_OFFSET, PAYLOAD_SIZE)
        self._entries = [
            self._file.place(TABLE_OFFSET + at * ENTRY_SIZE, MemoryEntry) for at in range(MOST_MEMORIES)
        ]
        self.add_bar(_BAR, self._file)
        self._signals = threading.Lock()  # of the next three, which other threads than the guest's change
        self._rung = 0
        self._enabled = 0
        self._pending = False
        self.finish()

    def __repr__(self) -> str:
        return f"<registers of {self.name}>"

    def irqs(self) -> list[int]:
        return [1, VECTORS, 0, 0, 0]

    def serve(
        self, server: AccessServer | None, places: Sequence[tuple[Memory, int, int]] | None = None
    ) -> None:
        """Answer for `server`, or for none. `places` are the memories, each with its function and BAR: None leaves the
        table as it is."""
        with self.lock:
            self._server = server
            if places is not None:
                for entry, (memory, function, bar) in zip(self._entries, places, strict=False):
                    entry.size.size = memory.size
                    entry.place.assign(
                        int(entry.place.make(function=function, bar=bar, source=memory.source))
                    )
                    at = entry.base + ENTRY_NAME_OFFSET
                    self._file.poke(at, memory.name.encode()[:ENTRY_NAME_SIZE].ljust(ENTRY_NAME_SIZE, b"\0"))
                self.registers.capabilities.memories = len(places)
                self._file.seal()

    # -- interrupts ------------------------------------------------------------------------------------------------

    def rung(self, offset: int | None) -> None:
        """A word of the arena was rung, or the server has news. From any thread."""
        self._signal(NEWS if offset is None else vector_of(offset))

    def _signal(self, vector: int) -> None:
        with self._signals:
            self._rung |= 1 << vector
            bus = self._bus
            if bus is None or not self._enabled >> vector & 1 or self.silent:
                return
            assert self.msi is not None
            if self.msi.control.enable:
                # one that has fewer messages than vectors gets the last one for all the others
                bus.interrupt(MSI, min(vector, (1 << self.msi.control.multiple_message_enable) - 1))
                return
            self._pending = True
            self._assert()

    def _assert(self) -> None:
        """The lock of signals is held."""
        bus = self._bus
        if self._pending and bus is not None and not self.header.command.interrupt_disable:
            bus.interrupt(INTX, 0)

    def read(self, region: int, offset: int, size: int) -> bytes:
        data = super().read(region, offset, size)
        self._reassert(region)
        return data

    def write(self, region: int, offset: int, data: bytes) -> None:
        super().write(region, offset, data)
        self._reassert(region)

    def _reassert(self, region: int) -> None:
        # A virtual machine takes any access to a BAR for the end of the interrupt, whoever has made it
        if region == _BAR and self._pending:
            with self._signals:
                self._assert()

    @on_read(CommonHeader.status)
    def _show_pending(self) -> None:
        self.header.status.interrupt_status = bool(self._enabled)

    @on_write(CommonHeader.command.interrupt_disable)
    def _masked(self, old: int, new: int) -> None:
        with self._signals:
            if new and not old:
                self._pending = False
            elif not new:
                self._assert()

    @on_write(AccessRegisters.enable)
    def _enable(self, old: int, new: int) -> None:
        with self._signals:
            self._enabled = new
            if not new:
                self._pending = False

    @on_read(AccessRegisters.cause)
    def _show_cause(self) -> None:
        self.registers.cause.vectors = self._rung

    @on_write(AccessRegisters.cause)
    def _clear_cause(self, old: int, new: int) -> None:
        with self._signals:
            self._rung &= ~(old & ~new)

    # -- commands --------------------------------------------------------------------------------------------------

    @on_write(AccessRegisters.doorbell)
    def _doorbell(self, old: int, new: int) -> None:
        if self._server is not None:
            self._server.ring(new * 8)

    @on_read(AccessRegisters.status)
    def _show_status(self) -> None:
        self.registers.status.ready = self._server is not None

    @on_write(AccessRegisters.command)
    def _command(self, old: int, new: int) -> None:
        """A request that makes no sense is answered with MALFORMED; the server's own failures with FAILED."""
        registers, server = self.registers, self._server
        opcode, slot, length = registers.command.opcode, registers.slot.slot, registers.length.length
        if server is None:
            status, answer = NOT_SERVED, b"no server is behind the device"
        elif length > PAYLOAD_SIZE:
            status, answer = (
                MALFORMED,
                f"a request of {length} bytes; {PAYLOAD_SIZE} are the most".encode(),
            )
        else:
            self._here = True
            request = self._file.peek(PAYLOAD_OFFSET, length)
            try:
                status, answer = server.ask(self.visitor, slot, opcode, request)
            except Exception:
                log.exception("%s: the pool's server failed; a bug", self.name)
                status, answer = FAILED, b"the pool's server failed"
        answer = answer[:PAYLOAD_SIZE]
        self._file.poke(PAYLOAD_OFFSET, answer)
        registers.length.length = len(answer)
        registers.result.assign(int(registers.result.make(status=status)))

    # -- coming and going --------------------------------------------------------------------------------------------

    def attach(self, bus: Bus) -> None:
        super().attach(bus)
        self._machine = Machine.of(getattr(bus, "process", 0))
        self._remember()

    def recall(self) -> None:
        """Machines that an earlier server of these memories let in, and that map them yet, have been taken the device
        from, too: that server has ended."""
        for number, (host, pid, began) in enumerate(self._remembered.all, 1):
            machine = Machine.of(pid, began)
            if machine is not None and machine.maps(self.files):
                self._wait_for(machine, Visitor(self.name, host, -number), here=False)
            elif machine is not None:
                machine.close()
        self._remember()

    def _remember(self) -> None:
        with self._remembering:
            found = [(visitor.host, machine) for visitor, machine in list(self.lingering.items())]
            if self._machine is not None:
                found.append((self.visitor.host, self._machine))
            self._remembered.keep(found)

    def close(self) -> None:
        """Write down nothing any more."""
        self._remembered.close()

    def detach(self) -> None:
        """The guest has gone, and with it the programs in it: as soon as its machine maps none of the memory, which
        one that is stopped does when it goes on, or ends."""
        super().detach()
        machine, self._machine = self._machine, None
        if machine is None or not machine.maps(self.files):
            if machine is not None:
                machine.close()
            self._remember()
            self._leave()
            return
        visitor, here = self.visitor, self._here
        self._here, self.visitor = False, replace(visitor, visit=visitor.visit + 1)
        self._wait_for(machine, visitor, here)

    def _wait_for(self, machine: Machine, visitor: Visitor, here: bool) -> None:
        self.lingering[visitor] = machine
        self._remember()
        threading.Thread(
            target=self._linger, args=(machine, visitor, here), name=f"{self.name} lingers", daemon=True
        ).start()

    def _linger(self, machine: Machine, visitor: Visitor, here: bool) -> None:
        pause = _LOOK
        while machine.maps(self.files) and not machine.ended(pause):
            pause = min(2 * pause, _RARELY)
        del self.lingering[visitor]
        machine.close()
        self._remember()
        if here:
            self._tell_gone(visitor)

    def on_reset(self, kind: Reset) -> None:
        """Nothing interrupts, and after a reset of the machine whoever has come by this device is gone. One of the
        function alone takes no memory from programs, so they stay who they are."""
        super().on_reset(kind)
        self._file.reset(kind)
        with self._signals:
            self._rung = self._enabled = 0
            self._pending = False
        self.registers.enable.vectors = 0  # whatever it was when a server came
        if not kind.of_function:
            self._leave()

    def _leave(self) -> None:
        here, self._here = self._here, False
        if here:
            self._tell_gone(self.visitor)

    def _tell_gone(self, visitor: Visitor) -> None:
        server = self._server
        if server is not None:
            try:
                server.gone(visitor)
            except Exception:
                log.exception("%s: the pool's server failed; a bug", self.name)
