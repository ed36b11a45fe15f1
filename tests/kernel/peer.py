"""QEMU's own cxl-type3, driven from here register by register: a second implementation, without a guest.

QEMU runs with the test accelerator, which executes nothing; the accesses of its processor are ours to make, over the
text protocol of system/qtest.c. Bus numbers, windows and BARs are set as firmware would.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from softcxl.lab.parts import Parts

ECAM = 0xB0000000
ROOT_BUS, ENDPOINT_BUS = 52, 53
BARS = {0: 0xE0000000, 2: 0xE0100000, 4: 0xE0200000}
SWITCH_BUS, DOWNSTREAM_BUS, BELOW_SWITCH_BUS = 53, 54, 55
CCI_BAR = 0xE0300000
_WINDOW = 0xE0F0E000  # of the root port, as its registers have it: from 0xe0000000, 256 MiB less one
_ADDRESS_PORT, _DATA_PORT, _PCIEXBAR = 0xCF8, 0xCFC, 0x80000060
CONFIG = 7


class QemuDevice:
    """A cxl-type3 with these `-object` words and device properties, as `softcxl.testing.driver` sees a function.

    `read` and `write` take a VFIO region index (a BAR, or 7 for configuration space), an offset in bytes, and a
    size. Raises `ConnectionError` where QEMU goes away, `AssertionError` where it refuses an access.
    """

    endpoint_bus = ENDPOINT_BUS

    def __init__(self, parts: Parts, objects: Sequence[str], properties: str) -> None:
        ours, theirs = socket.socketpair()
        words = [*parts.qemu.command]
        for folder in parts.qemu.data:
            words += ["-L", str(folder)]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35,cxl=on"]
        words += ["-accel", "qtest", "-m", "256M"]
        words += [
            "-chardev",
            f"socket,id=test,fd={theirs.fileno()}",
            "-qtest",
            "chardev:test",
            "-qtest-log",
            "none",
        ]
        for one in objects:
            words += ["-object", one]
        words += ["-device", f"pxb-cxl,id=hb,bus=pcie.0,bus_nr={ROOT_BUS}"]
        words += ["-device", "cxl-rp,id=rp,bus=hb,port=0,chassis=1,slot=1"]
        for one in self._below(f"cxl-type3,id=mem0,{properties}"):
            words += ["-device", one]
        with theirs:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **parts.qemu.environment},
            )
        ours.settimeout(120)
        self._socket = ours
        self._lines = ours.makefile("rb")
        self._firmware()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()
        self._process.terminate()
        self._process.communicate(timeout=120)

    def read(self, region: int, offset: int, size: int) -> bytes:
        """`size` bytes: 1, 2, 4 or 8 in one access, anything else in dwords and bytes."""
        return self.load(self._address(region, offset), size)

    def write(self, region: int, offset: int, data: bytes) -> None:
        """`data`, in one access where it is 1, 2, 4 or 8 bytes."""
        self.store(self._address(region, offset), data)

    def load(self, address: int, size: int) -> bytes:
        """The same at a physical address."""
        if size in _WIDTHS:
            return int(self._ask(f"read{_WIDTHS[size]} {address:#x}"), 16).to_bytes(size, "little")
        return b"".join(
            self.load(address + at, min(4, size - at) if size - at >= 4 else 1) for at in _steps(size)
        )

    def store(self, address: int, data: bytes) -> None:
        """The same at a physical address."""
        if len(data) in _WIDTHS:
            self._ask(f"write{_WIDTHS[len(data)]} {address:#x} {int.from_bytes(data, 'little'):#x}")
            return
        for at in _steps(len(data)):
            self.store(address + at, data[at : at + 4] if len(data) - at >= 4 else data[at : at + 1])

    def _address(self, region: int, offset: int) -> int:
        return ECAM + (self.endpoint_bus << 20) + offset if region == CONFIG else BARS[region] + offset

    def _below(self, device: str) -> list[str]:
        """What is below the root port `rp`, with the device."""
        return [f"{device},bus=rp"]

    def _bridge(self, bus: int, secondary: int) -> None:
        """Have the bridge that is device 0 on `bus` lead to `secondary` and all after it, and to the BARs' window."""
        bridge = ECAM + (bus << 20)
        for offset, value in (
            (0x18, self.endpoint_bus << 16 | secondary << 8 | bus),
            (0x20, _WINDOW),
            (0x04, 6),
        ):
            self._ask(f"writel {bridge + offset:#x} {value:#x}")

    def _firmware(self) -> None:
        for port, value in ((_ADDRESS_PORT, _PCIEXBAR), (_DATA_PORT, ECAM | 1)):
            self._ask(f"outl {port:#x} {value:#x}")
        for bus in range(ROOT_BUS, self.endpoint_bus):
            self._bridge(bus, bus + 1)
        for bar, address in BARS.items():
            self.write(CONFIG, 0x10 + 4 * bar, address.to_bytes(4, "little"))
        self.write(CONFIG, 0x04, b"\6\0")

    def _ask(self, line: str) -> str:
        self._socket.sendall(line.encode() + b"\n")
        while answer := self._lines.readline().split():
            if answer[0] == b"OK":
                return answer[1].decode() if len(answer) > 1 else ""
            assert answer[0] not in (b"FAIL", b"ERR"), f"QEMU refused {line!r}: {answer}"
        complaint = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
        raise ConnectionError(f"QEMU ended at {line!r}: {complaint.strip()}")


class QemuBelowSwitch(QemuDevice):
    """The same below QEMU's CXL switch, whose mailbox CCI is `cci`, a function as the driver sees one."""

    endpoint_bus = BELOW_SWITCH_BUS

    def __init__(self, parts: Parts, objects: Sequence[str], properties: str) -> None:
        self.cci = _SwitchCci(self)
        super().__init__(parts, objects, properties)

    def _below(self, device: str) -> list[str]:
        return [
            "cxl-upstream,id=us,bus=rp,addr=0.0,multifunction=on",
            "cxl-switch-mailbox-cci,id=cci,bus=rp,addr=0.1,target=us",
            "cxl-downstream,id=ds,bus=us,port=0,chassis=1,slot=2",
            f"{device},bus=ds",
        ]

    def _firmware(self) -> None:
        super()._firmware()
        self.cci.write(CONFIG, 0x10, CCI_BAR.to_bytes(4, "little"))
        self.cci.write(CONFIG, 0x04, b"\6\0")


class _SwitchCci:
    """The mailbox CCI of a switch: function 1 beside its upstream port."""

    def __init__(self, machine: QemuBelowSwitch) -> None:
        self._machine = machine

    def read(self, region: int, offset: int, size: int) -> bytes:
        return self._machine.load(self._address(region, offset), size)

    def write(self, region: int, offset: int, data: bytes) -> None:
        self._machine.store(self._address(region, offset), data)

    def _address(self, region: int, offset: int) -> int:
        return ECAM + (SWITCH_BUS << 20) + 0x1000 + offset if region == CONFIG else CCI_BAR + offset


_WIDTHS = {1: "b", 2: "w", 4: "l", 8: "q"}


def _steps(size: int) -> list[int]:
    whole = size - size % 4
    return [*range(0, whole, 4), *range(whole, size)]
