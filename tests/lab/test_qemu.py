"""Guest plans as QEMU command lines, against lines QEMU 11.1 has been started with."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from softcxl.lab.errors import PlanError
from softcxl.lab.parts import Kernel, Qemu
from softcxl.lab.plan import (
    Bridge,
    BridgeDecoder,
    DownstreamPort,
    Endpoint,
    GiB,
    GuestPlan,
    Piece,
    RootPort,
    Switch,
    Window,
)
from softcxl.lab.qemu import Lines, command_line, endpoint_devices

QEMU = Qemu(("qemu-system-x86_64",), (11, 1, 3), "system", (Path("/firmware"),))
KERNEL = Kernel(Path("/boot/vmlinuz"), None, "7.2.12", "given")
LINES = Lines(serial=10, monitor=11, control=12, out=13, err=14, terminal=15)
SWITCH = Switch(
    "sw0", (DownstreamPort("dsp0", Endpoint("mem1", Path("/run/mem1.sock"))), DownstreamPort("dsp1"))
)
PLAN = GuestPlan(
    name="alpha",
    cpus=2,
    bridges=(
        Bridge(
            "hb0", 12, (RootPort("rp0", Endpoint("mem0", Path("/run/mem0.sock"))), RootPort("rp1", SWITCH))
        ),
        Bridge("hb1", 18, (RootPort("rp2"),)),
    ),
    windows=(Window("w0", 4 * GiB, GiB, 7, (12,)), Window("w1", 5 * GiB, 2 * GiB, Path("/data/a,b"), (18,))),
)


def line(plan: GuestPlan = PLAN, lines: Lines = LINES, **more: object) -> list[str]:
    return command_line(plan, QEMU, KERNEL, Path("/initrd"), lines, **more)  # type: ignore[arg-type]


def values(words: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(words) if name == option]


def test_machine() -> None:
    words = line()
    assert words[0] == "qemu-system-x86_64"
    assert values(words, "-L") == ["/firmware"]
    assert values(words, "-accel") == ["tcg"]
    assert values(words, "-cpu") == ["max,hypervisor=off"]
    assert values(words, "-smp") == ["2,maxcpus=2"]
    assert values(words, "-machine")[0].startswith("q35,cxl=on")
    # as much address space as the windows span, and a slot for each
    assert values(words, "-m") == ["1024M,slots=2,maxmem=4096M"]
    assert values(words, "-nic") == ["none"]


@pytest.mark.parametrize(("processors", "at_most"), [(1, 2), (2, 2), (4, 4)])
def test_an_emulated_machine_has_room_for_two_processors(processors: int, at_most: int) -> None:
    """TCG's atomic operations are atomic, for others that share the memory, if there may be more than one."""
    words = line(GuestPlan(cpus=processors))
    assert values(words, "-smp") == [f"{processors},maxcpus={at_most}"]


def test_without_bridges_there_is_no_cxl() -> None:
    words = line(GuestPlan())
    assert values(words, "-machine")[0].startswith("q35,cxl=off")
    assert values(words, "-m") == ["1024M"]
    assert "acpi_no_memhotplug" not in values(words, "-append")[0]


def test_kvm() -> None:
    words = line(kvm=True)
    assert values(words, "-accel") == ["kvm"]
    assert values(words, "-cpu") == ["host,hypervisor=off"]
    assert values(words, "-smp") == ["2"]


def test_devices() -> None:
    devices = [one for one in values(line(), "-device") if "cxl-" in one or "-cxl" in one or "vfio" in one]
    socket = {
        "driver": "vfio-user-pci",
        "id": "mem0",
        "bus": "rp0",
        "socket": {"type": "unix", "path": "/run/mem0.sock"},
    }
    assert json.loads(devices[2]) == socket
    below = json.loads(devices[6])
    assert (below["id"], below["bus"], below["socket"]["path"]) == ("mem1", "dsp0", "/run/mem1.sock")
    assert [one for one in devices if not one.startswith("{")] == [
        "pxb-cxl,id=hb0,bus=pcie.0,bus_nr=12,hdm_for_passthrough=true",
        "cxl-rp,id=rp0,bus=hb0,port=0,chassis=1,slot=1",
        "cxl-rp,id=rp1,bus=hb0,port=1,chassis=1,slot=2",
        "cxl-upstream,id=sw0,bus=rp1",
        "cxl-downstream,id=dsp0,bus=sw0,port=0,chassis=2,slot=1",
        "cxl-downstream,id=dsp1,bus=sw0,port=1,chassis=2,slot=2",
        "pxb-cxl,id=hb1,bus=pcie.0,bus_nr=18,hdm_for_passthrough=true",
        "cxl-rp,id=rp2,bus=hb1,port=0,chassis=3,slot=1",
    ]


def test_a_window_may_be_of_several_files() -> None:
    pieces = (Piece(0, 2 << 20, 7), Piece(4 << 20, 6 << 20, Path("/data/arena"), 4096))
    words = line(replace(PLAN, windows=(Window("w0", 4 * GiB, GiB, pieces, (12,)),)))
    assert values(words, "-object") == [
        "memory-backend-file,id=m-w0.0,mem-path=/proc/self/fd/7,size=2097152,share=on",
        "memory-backend-file,id=m-w0.1,mem-path=/data/arena,size=6291456,share=on,offset=4096",
    ]
    assert [one for one in values(words, "-device") if one.startswith("pc-dimm")] == [
        "pc-dimm,id=w0.0,memdev=m-w0.0,addr=0x100000000",
        "pc-dimm,id=w0.1,memdev=m-w0.1,addr=0x100400000",
    ]
    assert values(words, "-m") == ["1024M,slots=2,maxmem=2048M"]
    # what is in there is others', and no memory of Linux's own
    assert "memhp_default_state=offline" in values(words, "-append")[0].split()
    assert "memhp_default_state" not in values(line(), "-append")[0]


def test_windows_are_shared_memory_at_fixed_addresses() -> None:
    words = line()
    assert values(words, "-object") == [
        "memory-backend-file,id=m-w0,mem-path=/proc/self/fd/7,size=1073741824,share=on",
        "memory-backend-file,id=m-w1,mem-path=/data/a,,b,size=2147483648,share=on",
    ]
    assert [one for one in values(words, "-device") if one.startswith("pc-dimm")] == [
        "pc-dimm,id=w0,memdev=m-w0,addr=0x100000000",
        "pc-dimm,id=w1,memdev=m-w1,addr=0x140000000",
    ]


def test_our_ends() -> None:
    words = line()
    assert values(words, "-chardev") == [
        f"socket,id=c-{name},fd={number}"
        for number, name in enumerate(("serial", "monitor", "control", "out", "err", "terminal"), 10)
    ]
    assert [one for one in values(words, "-device") if one.startswith("virtserialport")] == [
        f"virtserialport,chardev=c-{name},name=softcxl.{name}" for name in ("control", "out", "err")
    ]


def test_programmed_decoders_start_stopped() -> None:
    plan = replace(PLAN, decoders=(BridgeDecoder(12, 4 * GiB, GiB, 256, (0,)),))
    words = line(plan, replace(LINES, qtest=16))
    assert "-S" in words
    assert values(words, "-action") == ["reboot=shutdown,shutdown=pause"]
    assert "-S" not in line()


def test_kernel_words() -> None:
    append = values(line(append=["dyndbg=file", "panic=1"]), "-append")[0].split()
    assert append[0] == "console=ttyS0"
    assert {"quiet", "acpi_no_memhotplug", "softcxl.host=alpha"} < set(append)
    assert append[-2:] == ["dyndbg=file", "panic=1"]
    assert "quiet" not in values(line(verbose=True), "-append")[0]


def test_share(tmp_path: Path) -> None:
    words = line(share=tmp_path)
    assert f"local,id=share,path={tmp_path},security_model=none,multidevs=remap" in words
    assert "softcxl.share" in values(words, "-append")[0].split()
    with pytest.raises(PlanError, match=r"The folder to share, .*/gone, does not exist"):
        line(share=tmp_path / "gone")


def test_extra_words_come_last() -> None:
    assert line(extra=["-d", "int"])[-2:] == ["-d", "int"]


def test_a_second_serial_port_comes_after_the_console() -> None:
    words = line(serial=Path("/run/a,b.sock"))
    assert values(words, "-serial") == ["chardev:c-serial", "chardev:c-line"]
    assert "socket,id=c-line,path=/run/a,,b.sock" in values(words, "-chardev")
    assert values(line(), "-serial") == ["chardev:c-serial"]


def test_bad_plan_is_refused() -> None:
    with pytest.raises(PlanError):
        line(replace(PLAN, cpus=0))


def test_a_switch_has_the_test_socket_and_starts_at_once() -> None:
    """Its slots are worked from there (softcxl.lab.switch_slots)."""
    assert PLAN.switched
    assert not replace(PLAN, bridges=PLAN.bridges[1:]).switched
    words = line(PLAN, replace(LINES, qtest=16))
    assert "qtest,id=qtest,chardev=c-qtest,log=/dev/null" in words
    assert "-S" not in words


def test_a_device_of_several_functions_has_function_0_last() -> None:
    """With function 0 a guest looks for the others (PCIe hot plug)."""
    endpoint = Endpoint("door", Path("/run/door.sock"), (Path("/run/door.1.sock"), Path("/run/door.2.sock")))
    made = endpoint_devices(endpoint, "rp0")
    assert [(one["id"], one["addr"], one["socket"]["path"]) for one in made] == [
        ("door.1", "00.1", "/run/door.1.sock"),
        ("door.2", "00.2", "/run/door.2.sock"),
        ("door", "00.0", "/run/door.sock"),
    ]
    assert [one.get("multifunction", False) for one in made] == [False, False, True]
    (alone,) = endpoint_devices(Endpoint("mem0", Path("/run/mem0.sock")), "rp0")
    assert alone.keys() == {"driver", "id", "bus", "socket"}
