"""QEMU's command line for a guest plan."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softcxl.fabric.layout import device_memory_base
from softcxl.lab.errors import PlanError
from softcxl.lab.parts import Kernel, Qemu
from softcxl.lab.plan import Bridge, Endpoint, GuestPlan, Switch, Window

SHARE_TAG = "softcxl"


@dataclass(frozen=True)
class Lines:
    """Our ends' counterparts: file descriptors QEMU inherits, each one end of a socket pair."""

    serial: int
    monitor: int
    control: int
    out: int
    err: int
    terminal: int
    qtest: int | None = None


def command_line(
    plan: GuestPlan,
    qemu: Qemu,
    kernel: Kernel,
    initrd: Path,
    lines: Lines,
    *,
    kvm: bool = False,
    share: Path | None = None,
    append: Sequence[str] = (),
    extra: Sequence[str] = (),
    verbose: bool = False,
    serial: Path | None = None,
) -> list[str]:
    """Every word of QEMU's command line.

    `append` goes to the kernel's command line, after our own words; `extra` to QEMU's. `verbose` lets the kernel
    print everything. `serial` is a Unix socket at which the guest's second serial port connects. A plan with programmed
    decoders makes QEMU start stopped, and stop where the guest restarts.

    Raises:
        PlanError: the plan is not one QEMU can build.
    """
    plan.check()
    words = [*qemu.command]
    for folder in qemu.data:
        words += ["-L", str(folder)]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-nic", "none"]
    words += ["-name", plan.name, "-accel", "kvm" if kvm else "tcg"]
    words += ["-machine", f"q35,cxl={'on' if plan.bridges else 'off'},usb=off,smbus=off,vmport=off,i8042=off"]
    # with the hypervisor bit Linux takes the processor's caches for beyond its reach and commits no region
    words += ["-cpu", f"{'host' if kvm else 'max'},hypervisor=off", "-smp", _processors(plan, kvm)]
    words += ["-m", _memory(plan)]
    words += ["-kernel", str(kernel.image), "-initrd", str(initrd)]
    words += ["-append", " ".join(kernel_words(plan, share is not None, verbose, append))]
    words += _characters(lines)
    if serial is not None:
        words += ["-chardev", f"socket,id=c-line,path={_escaped(serial)}", "-serial", "chardev:c-line"]
    if share is not None:
        if not share.is_dir():
            raise PlanError(f"The folder to share, {share}, does not exist.")
        words += ["-fsdev", f"local,id=share,path={_escaped(share)},security_model=none,multidevs=remap"]
        words += ["-device", f"virtio-9p-pci,fsdev=share,mount_tag={SHARE_TAG}"]
    for window in plan.windows:
        words += _window(window)
    chassis = itertools.count(1)
    for bridge in plan.bridges:
        words += _bridge(bridge, chassis)
    if lines.qtest is not None:
        words += ["-object", "qtest,id=qtest,chardev=c-qtest,log=/dev/null"]
    if plan.decoders:
        words += ["-S", "-action", "reboot=shutdown,shutdown=pause"]
    return [*words, *extra]


def _processors(plan: GuestPlan, kvm: bool) -> str:
    # For a machine that can have one processor only TCG makes plain loads and stores of atomic operations, and these
    # meet those of other machines, and of the host, in the memory that they share
    return str(plan.cpus) if kvm else f"{plan.cpus},maxcpus={max(plan.cpus, 2)}"


def kernel_words(plan: GuestPlan, share: bool, verbose: bool, append: Sequence[str]) -> list[str]:
    """The kernel's command line."""
    words = ["console=ttyS0"]
    if not verbose:
        words += ["quiet"]
    if plan.windows:
        # the windows' memory stands there as DIMMs, and is not to be taken for ordinary memory
        words += ["acpi_no_memhotplug"]
    if any(isinstance(window.backing, tuple) for window in plan.windows):
        # what a pool's clients have is in there: Linux is not to put it online for itself, as distributions have it do
        words += ["memhp_default_state=offline"]
    # no watchdog over the clock, which a busy host would set off; the rest saves boot time
    words += ["tsc=reliable", "no_timer_check", "random.trust_cpu=on", "mitigations=off"]
    words += [f"softcxl.host={plan.name}"]
    if share:
        words += ["softcxl.share"]
    return [*words, *append]


def endpoint_devices(endpoint: Endpoint, port: str) -> list[dict[str, Any]]:
    """The properties of a Python device at the port with QEMU id `port`, for -device and for device_add: one for each
    function, function 0 last, with which the guest looks for the others."""
    last: dict[str, Any] = _function(endpoint.name, endpoint.socket, port)
    if not endpoint.functions:
        return [last]
    more = [
        _function(f"{endpoint.name}.{number}", socket, port) | {"addr": f"00.{number}"}
        for number, socket in enumerate(endpoint.functions, 1)
    ]
    return [*more, last | {"addr": "00.0", "multifunction": True}]


def _function(name: str, socket: Path, port: str) -> dict[str, Any]:
    return {
        "driver": "vfio-user-pci",
        "id": name,
        "bus": port,
        "socket": {"type": "unix", "path": str(socket)},
    }


def _memory(plan: GuestPlan) -> str:
    words = f"{plan.memory >> 20}M"
    if plan.windows:
        end = max(window.base + window.size for window in plan.windows)
        # a slot for each file of a window, and address space up to the end of the last
        span = end - device_memory_base(plan.memory)
        words += f",slots={plan.slots},maxmem={(plan.memory + span) >> 20}M"
    return words


def _characters(lines: Lines) -> list[str]:
    sockets = {
        "serial": lines.serial,
        "monitor": lines.monitor,
        "control": lines.control,
        "out": lines.out,
        "err": lines.err,
        "terminal": lines.terminal,
        "qtest": lines.qtest,
    }
    words: list[str] = []
    for name, descriptor in sockets.items():
        if descriptor is not None:
            words += ["-chardev", f"socket,id=c-{name},fd={descriptor}"]
    words += ["-serial", "chardev:c-serial", "-qmp", "chardev:c-monitor"]
    words += ["-device", "virtio-serial-pci,id=ports", "-device", "virtconsole,chardev=c-terminal"]
    for name in ("control", "out", "err"):
        words += ["-device", f"virtserialport,chardev=c-{name},name=softcxl.{name}"]
    return words


def _window(window: Window) -> list[str]:
    words: list[str] = []
    for number, piece in enumerate(window.pieces):
        name = window.name if piece.size == window.size else f"{window.name}.{number}"
        path = piece.backing if isinstance(piece.backing, Path) else Path(f"/proc/self/fd/{piece.backing}")
        memory = f"memory-backend-file,id=m-{name},mem-path={_escaped(path)},size={piece.size},share=on"
        if piece.start:
            memory += f",offset={piece.start}"
        words += ["-object", memory]
        words += ["-device", f"pc-dimm,id={name},memdev=m-{name},addr={window.base + piece.offset:#x}"]
    return words


def _bridge(bridge: Bridge, chassis: Iterator[int]) -> list[str]:
    # without the last word a bridge with one port has no decoders, and Linux makes one region below it at most
    words = ["-device", f"pxb-cxl,id={bridge.name},bus=pcie.0,bus_nr={bridge.bus},hdm_for_passthrough=true"]
    own = next(chassis)
    for index, port in enumerate(bridge.ports):
        place = f"chassis={own},slot={index + 1}"
        words += ["-device", f"cxl-rp,id={port.name},bus={bridge.name},port={index},{place}"]
        match port.below:
            case Endpoint() as endpoint:
                words += _endpoint(endpoint, port.name)
            case Switch() as switch:
                words += _switch(switch, port.name, next(chassis))
    return words


def _switch(switch: Switch, port: str, chassis: int) -> list[str]:
    words = ["-device", f"cxl-upstream,id={switch.name},bus={port}"]
    for index, downstream in enumerate(switch.ports):
        place = f"chassis={chassis},slot={index + 1}"
        words += ["-device", f"cxl-downstream,id={downstream.name},bus={switch.name},port={index},{place}"]
        if downstream.below is not None:
            words += _endpoint(downstream.below, downstream.name)
    return words


def _endpoint(endpoint: Endpoint, port: str) -> list[str]:
    return [word for one in endpoint_devices(endpoint, port) for word in ("-device", json.dumps(one))]


def _escaped(path: Path) -> str:
    """QEMU splits options at commas; a doubled one stands for itself."""
    return str(path).replace(",", ",,")
