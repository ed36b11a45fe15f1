"""Breaking things on purpose: all that can befall a memory device, as methods of `device.inject`.

>>> from softcxl.device.type3 import Type3
>>> from softcxl.spec.command.base import ReturnCode
>>> from softcxl.testing.driver import Driver
>>> device = Type3("mem0", volatile=256 << 20)
>>> fault = device.inject.fail(0x4000, ReturnCode.INTERNAL_ERROR, times=1)
>>> driver = Driver(device)
>>> driver.send(0x4000)[0], driver.send(0x4000)[0]
(4, 0)

Each may be called from any thread, also while a guest uses the device. Input that cannot be is a `ValueError` that
says what is allowed.
"""

from __future__ import annotations

import enum
import math
import random
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from softcxl.device import intercept
from softcxl.device.cci import Later, Reply
from softcxl.device.faults import Fault
from softcxl.device.geometry import Scope
from softcxl.device.injected_event import event_record
from softcxl.device.intercept import OPCODES, CommandFault, CommandFaults, Spoil, Watcher
from softcxl.device.poison import LINE
from softcxl.pci.aer import Kind, report
from softcxl.pci.port import DownstreamPort
from softcxl.spec.command.base import Command, ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.poison import PoisonSource
from softcxl.spec.cxl.device import MediaStatus, ResetNeeded
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3


_AER_DWORDS = 4


class Death(enum.Enum):
    """How a device dies."""

    SILENT = "silent"
    """It answers nothing any more: all reads find ones, what is written is lost, no interrupt comes."""
    FIRMWARE = "firmware"
    """Its firmware has stopped (Device Fatal, FW Halt): no command ends, registers and memory still answer."""
    MEDIA = "media"
    """Its media have failed (Media Status: Error): commands that need them are refused, its memory does not answer."""


class Injection:
    """What can be done to one device.

    Faults of commands take `times` (how many commands meet it; None: all until it is cleared), `probability` (of each
    command to meet it, over 0 and up to 1) and `seed` (of the generator of chances and random bytes: the same seed,
    the same bytes). They return the `CommandFault`, for `clear`. An `opcode` is a number, a declared command, or None
    for every command; the first fault injected that a command meets is the one it has.
    """

    def __init__(self, device: Type3) -> None:
        self._device = device
        self._commands = CommandFaults(device.cci)
        self._halt: CommandFault | None = None
        self._unlinked = False

    # -- media, events, health -------------------------------------------------------------------------------------

    def poison(self, dpa: int, length: int = LINE) -> int:
        """Poison the lines that `length` bytes from `dpa` touch, with the events of it; returns how many are new.
        Raises `ValueError` outside the device's capacity."""
        end = self._device.capacity.end
        if length < 1 or not 0 <= dpa <= dpa + length <= end:
            raise ValueError(f"{length} bytes at DPA {dpa:#x}: the device has {end:#x} bytes")
        with self._device.lock:
            before = len(self._device.poison.map)
            for line in range(dpa & -LINE, dpa + length, LINE):
                if not self._device.inject_poison(line, PoisonSource.INTERNAL):
                    break  # the list is full, and says so itself
            return len(self._device.poison.map) - before

    def spoil(self, dpa: int, length: int = LINE) -> int:
        """The lines that `length` bytes from `dpa` touch go bad, and nobody notices: a read, a scrub or a scan that
        comes by does. Returns how many were good. Raises `ValueError` outside the device's capacity."""
        poison, end = self._device.poison, self._device.capacity.end
        if length < 1 or not 0 <= dpa <= dpa + length <= end:
            raise ValueError(f"{length} bytes at DPA {dpa:#x}: the device has {end:#x} bytes")
        with self._device.lock:
            before = len(poison.latent)
            for line in range(dpa & -LINE, dpa + length, LINE):
                poison.spoil(line)
            return len(poison.latent) - before

    def decay(
        self,
        dpa: int,
        *,
        scope: Scope = Scope.ROW,
        nibbles: int = 1,
        every: float = 1.0,
        endurance: int = 10,
    ) -> Fault:
        """The media decay at `dpa`: every `every` seconds an error of the `nibbles` (one bit each) is corrected and
        logged, and after `endurance` of them the line is lost, until a repair replaces `scope` of the media, or
        `device.faults.mend()`. Raises `ValueError` for what cannot be."""
        return self._device.faults.add(dpa, scope=scope, nibbles=nibbles, every=every, endurance=endurance)

    def clear_poison(self, dpa: int, length: int = LINE) -> int:
        """Take the poison off again, whose data stay; returns how many lines had it."""
        return self._device.clear_poison(dpa, length)

    def correct(self, dpa: int, count: int = 1) -> None:
        """Have `count` errors corrected at `dpa`: counted, and logged as one event. Raises `ValueError`."""
        self._device.faults.correct(dpa, count)

    def event(self, log: EventLog, kind: str, **fields: Any) -> bool:
        """Log an event of a `kind` of `softcxl.device.injected_event.KINDS`; returns False where the log was full.

        `fields` are those of its record, its header and its flags (`event_type=1`, `row=7`,
        `permanent_condition=True`), and `dpa`, in bytes; what says that a field is valid is set with it. Raises
        `ValueError` for an unknown kind or field, a value that does not fit, or a log that the device does not have.
        """
        return self._device.record_event(log, event_record(self._device, kind, fields))

    def health(self, **changes: int) -> None:
        """Change the device's condition by items of `DeviceHealth`: ``health(device_temperature=95)``, in °C.
        Raises `ValueError` for an unknown item or a value that does not fit."""
        condition = self._device.health.info
        known = [one.name for one in type(condition).__layout__.fields if one.kind != "reserved"]
        for name in changes:
            if name not in known:
                raise ValueError(f"health has no {name!r}; it has {', '.join(known)}")
        try:
            condition.replace(**changes).pack()
        except (ValueError, TypeError, OverflowError, AttributeError, struct.error) as error:
            raise ValueError(f"health: {error}") from None
        self._device.set_health(**changes)

    def backpressure(self, percent: int) -> None:
        """The egress port is held up `percent` of the time, as Get SLD QoS Status tells. Raises `ValueError` for what
        is not from 0 to 100."""
        self._device.qos.backpressure = percent

    # -- commands ------------------------------------------------------------------------------------------------

    def fail(
        self, opcode: int | Command | None, code: ReturnCode, *, vendor_status: int = 0, **when: Any
    ) -> CommandFault:
        """The command is not carried out and returns `code`."""
        code = ReturnCode(code)
        spoil = intercept.fails(code, vendor_status)
        return self._fault(opcode, spoil, f"fails with {code.name.lower().replace('_', ' ')}", **when)

    def hang(self, opcode: int | Command | None, **when: Any) -> CommandFault:
        """The command's doorbell does not clear before `release`, or a reset."""
        return self._fault(opcode, intercept.late(), "hangs", **when)

    def delay(self, opcode: int | Command | None, seconds: float, **when: Any) -> CommandFault:
        """The command takes `seconds`."""
        if not 0 < seconds < math.inf:
            raise ValueError(f"a delay of {seconds} seconds: it is over 0 and finite")
        return self._fault(opcode, intercept.late(seconds), f"takes {seconds:g} s", **when)

    def garble(self, opcode: int | Command | None, **when: Any) -> CommandFault:
        """The command is carried out, and its output payload is random bytes."""
        return self._fault(opcode, intercept.garbage(), "answers garbage", **when)

    def shorten(self, opcode: int | Command | None, size: int, **when: Any) -> CommandFault:
        """The command is carried out, and its output payload has at most `size` bytes."""
        if size < 0:
            raise ValueError(f"an output payload of {size} bytes: 0 or more are allowed")
        return self._fault(opcode, intercept.short(size), f"answers at most {size} bytes", **when)

    def lengthen(self, opcode: int | Command | None, size: int, **when: Any) -> CommandFault:
        """The command is carried out, and `size` random bytes follow its output payload, as far as there is room."""
        most = self._device.cci.payload_max
        if not 0 < size <= most:
            raise ValueError(f"{size} bytes more in an output payload: 1 to {most} are allowed")
        return self._fault(opcode, intercept.long(size, most), f"answers {size} bytes too many", **when)

    def _fault(
        self,
        opcode: int | Command | None,
        spoil: Spoil,
        says: str,
        *,
        times: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
    ) -> CommandFault:
        number = opcode.opcode if isinstance(opcode, Command) else opcode
        if number is not None and not 0 <= number < OPCODES:
            raise ValueError(f"opcode {number:#x}: 0000h to FFFFh are allowed")
        if times is not None and times < 1:
            raise ValueError(f"times={times}: 1 or more are allowed, or None for all")
        if not 0 < probability <= 1:
            raise ValueError(f"probability {probability}: it is over 0 and at most 1")
        name = "every command" if number is None else f"command {number:04X}h"
        fault = CommandFault(
            number,
            spoil,
            f"{name} {says}",
            times,
            probability,
            random.Random(seed),
        )
        with self._device.lock:
            self._commands.add(fault)
        return fault

    @property
    def faults(self) -> list[CommandFault]:
        """The faults of commands that can still be met, in the order in which they are looked at."""
        with self._device.lock:
            return [one for one in self._commands.faults if not one.over]

    def release(self) -> bool:
        """Let the command that hangs, or is late, come to its end now. Returns whether there was one."""
        with self._device.lock:
            released = [one.release() for one in self._device.mailboxes]
            return any(released)

    def clear(self, fault: CommandFault | None = None) -> None:
        """Take back one fault of commands, or all, and release the command that waits. What a device that died has
        is `revive`'s."""
        with self._device.lock:
            faults = self._commands.faults
            self._commands.faults = [
                one for one in faults if one is self._halt or (fault is not None and one is not fault)
            ]
            self._commands.settle()
            self.release()

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called with the opcode, input payload and reply of each command from now on, with the
        device's lock held; returns what ends that."""
        with self._device.lock:
            self._commands.watchers.append(watcher)
            self._commands.settle()

        def end() -> None:
            with self._device.lock:
                if watcher in self._commands.watchers:
                    self._commands.watchers.remove(watcher)
                self._commands.settle()

        return end

    # -- errors, death, link ---------------------------------------------------------------------------------------

    def error(
        self, name: str, *, correctable: bool = False, protocol: str = "cxl", header: Sequence[int] = ()
    ) -> Kind | None:
        """Have a protocol error happen, and send the message that is due, whose kind is returned: None where masks or
        enables keep it. `name` is that of its bit in the status register: of the CXL RAS capability (``mem_data_ecc``),
        or with `protocol` "pcie" of AER (``completion_timeout``); `header` is what its log has, in dwords, at most 16,
        or 4. Raises `ValueError` for what cannot be. Not with the device's lock held: the machine's comes first."""
        if protocol == "cxl":
            return self._device.ras.inject(name, correctable=correctable, header=header)
        if protocol != "pcie":
            raise ValueError(f"protocol {protocol!r}: there are cxl and pcie")
        if len(header) > _AER_DWORDS or not all(0 <= dword < 1 << 32 for dword in header):
            raise ValueError(f"header: up to {_AER_DWORDS} numbers of 32 bits, not {list(header)}")
        packed = sum(dword << 32 * place for place, dword in enumerate(header))
        return report(self._device, name, correctable=correctable, header=packed)

    def die(self, how: Death | str = Death.SILENT) -> None:
        """Let the device die. `revive`, or a reset, brings it back, of a silent one `revive` alone. Raises
        `ValueError` for an unknown kind of death."""
        how = Death(how)
        device = self._device
        if how is Death.SILENT:
            device.silence()
            device.custody.spoil()
            return
        with device.lock:
            status = device.memory_status
            if how is Death.FIRMWARE:
                status.fatal = status.firmware_halt = True
                status.mailbox_ready = False
                status.reset_needed = ResetNeeded.HOT
                if self._halt is None:
                    self._halt = CommandFault(None, self._halted, "the firmware has stopped")
                    self._commands.faults.insert(0, self._halt)
                    self._commands.settle()
            else:
                device.custody.lose("its media have failed")
                status.media_status = MediaStatus.ERROR
                device.custody.spoil()

    def _halted(self, fault: CommandFault, run: Callable[[], Reply]) -> Reply:
        """No command ends until the device has been reset, which has the status register say so."""
        if self._device.memory_status.firmware_halt:
            return Later(run=lambda: self._halted(fault, run))
        self._end_halt()
        return run()

    def _end_halt(self) -> None:
        self._commands.faults = [one for one in self._commands.faults if one is not self._halt]
        self._halt = None
        self._commands.settle()

    def revive(self) -> None:
        """Bring the device back by a cold reset, as one that has been without power."""
        self._unlinked = False
        self._device.wake(Reset.COLD)
        with self._device.lock:
            self._end_halt()

    def link_down(self) -> None:
        """The link to the device fails: it answers nothing. Below a port of this process the port tells; QEMU's ports
        go on as if there were a link."""
        port = self._port()
        if port is not None:
            port.cut(True)
        elif not self._device.silent:
            self._unlinked = True
            self._device.custody.lose("its link is down")
            self._device.silence()

    def link_up(self) -> None:
        """The link trains again; the device comes out of a hot reset."""
        port = self._port()
        if port is not None:
            port.cut(False)
        elif self._unlinked:
            self._unlinked = False
            self._device.wake(Reset.HOT)

    def _port(self) -> DownstreamPort | None:
        seat = self._device.seat
        bridge = None if seat is None else seat.bus.bridge
        return bridge if isinstance(bridge, DownstreamPort) else None
