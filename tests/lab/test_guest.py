"""A real Linux in a real QEMU: commands, restarts, and every way a guest can fail."""

from __future__ import annotations

import gc
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.lab.errors import (
    CommandFailed,
    CommandTimeout,
    GuestGone,
    GuestPanic,
    GuestTimeout,
    GuestUnfit,
    LaunchError,
)
from softcxl.lab.firmware import bridge_registers
from softcxl.lab.guest import Guest
from softcxl.lab.parts import Parts
from softcxl.lab.plan import (
    Bridge,
    BridgeDecoder,
    Endpoint,
    GiB,
    GuestPlan,
    RootPort,
    Window,
)
from softcxl.lab.setup import setup

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

BRIDGES = (Bridge("hb0", 12, (RootPort("rp0"),)), Bridge("hb1", 14, (RootPort("rp1"), RootPort("rp2"))))
# QEMU leaves the decoders of a bridge with one port out if told to: so the first can be told from the second
MARKED = ["-set", "device.hb0.hdm_for_passthrough=off"]
SMALL = GuestPlan(memory=GiB // 2)


@pytest.fixture(scope="session")
def parts() -> Parts:
    return setup().parts()


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("a, share")


@pytest.fixture(scope="module")
def guest(parts: Parts, share: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """The guest most tests share: two bridges, two windows over files, a shared folder, an overlay."""
    overlay = tmp_path_factory.mktemp("overlay")
    (overlay / "sbin").mkdir()
    (overlay / "sbin" / "mine").write_text("#!/bin/sh\necho mine\n")
    (overlay / "sbin" / "mine").chmod(0o755)
    log = tmp_path_factory.mktemp("log") / "console"
    memory = os.memfd_create("window")
    os.ftruncate(memory, GiB)
    named = overlay.parent / "window"
    with named.open("wb") as file:
        file.truncate(GiB)
    plan = GuestPlan(
        name="alpha",
        bridges=BRIDGES,
        windows=(
            Window("w0", 4 * GiB, GiB, memory, (12, 14), granularity=4096, qtg=42),
            Window("w1", 5 * GiB, GiB, named, (14,)),
        ),
    )
    with Guest(
        plan,
        parts,
        share=share,
        overlays=[overlay],
        console_log=log,
        append=["softcxl.test=1"],
        extra=MARKED,
    ) as running:
        yield running
    os.close(memory)


def test_bridges_and_windows(guest: Guest) -> None:
    (bus,) = json.loads(guest.output("cxl list -BDPT"))
    assert {port["host"] for port in bus["ports:root0"]} == {"pci0000:0c", "pci0000:0e"}
    first, second = bus["decoders:root0"]
    assert (first["resource"], first["size"], first["qos_class"]) == (4 * GiB, GiB, 42)
    assert (first["interleave_ways"], first["interleave_granularity"]) == (2, 4096)
    assert [
        (one["target"], one["position"]) for one in sorted(first["targets"], key=lambda one: one["position"])
    ] == [
        ("pci0000:0c", 0),
        ("pci0000:0e", 1),
    ]
    assert (second["resource"], second["nr_targets"]) == (5 * GiB, 1)
    assert first["pmem_capable"]
    assert first["volatile_capable"]


def test_windows_are_not_ordinary_memory(guest: Guest) -> None:
    total = int(guest.output("awk '/MemTotal/ {print $2}' /proc/meminfo"))
    assert total << 10 < GiB
    assert "100000000-13fffffff : CXL Window 0" in guest.output("cat /proc/iomem")


def test_status_and_both_outputs(guest: Guest) -> None:
    result = guest.run("echo out; echo err >&2; exit 7")
    assert (result.status, result.stdout, result.stderr) == (7, b"out\n", b"err\n")
    assert guest.run("kill -9 $$").status == 128 + 9
    assert guest.run("no-such-program").status == 127


def test_any_bytes_come_through(guest: Guest) -> None:
    given = bytes(range(256)) * 1000
    result = guest.run("tee /dev/stderr", given=given)
    assert (result.stdout, result.stderr) == (given, given)
    assert guest.run("cat").stdout == b""


def test_a_lot_of_output(guest: Guest) -> None:
    assert guest.run("dd if=/dev/zero bs=64k count=256 2>/dev/null").stdout == bytes(16 << 20)


def test_output_as_it_comes(guest: Guest) -> None:
    seen: list[tuple[int, bytes]] = []

    def listen(stream: int, data: bytes) -> None:
        seen.append((stream, data))
        # the command goes on only when the host has seen what it said
        (guest_share / "seen").write_text("")

    guest_share = Path(str(guest._share))
    result = guest.run(
        "echo first; until [ -e /share/seen ]; do usleep 10000; done; echo second", on_output=listen
    )
    assert seen[0] == (1, b"first\n")
    assert result.stdout == b"first\nsecond\n"


def test_words_of_a_background_process_are_not_the_next_commands(guest: Guest) -> None:
    guest.run("(sleep 1; echo late; echo late >&2) &")
    assert guest.run("sleep 2; echo own").stdout.endswith(b"own\n")
    assert guest.run("echo next").stdout == b"next\n"


def test_commands_without_success_are_errors_where_asked(guest: Guest) -> None:
    assert guest.output("echo fine") == "fine\n"
    with pytest.raises(CommandFailed, match=r"'echo bad >&2; false' ended with status 1: bad"):
        guest.output("echo bad >&2; false")


def test_environment(guest: Guest, share: Path) -> None:
    assert guest.output("mine; hostname; pwd; whoami") == "mine\nalpha\n/\nroot\n"
    assert "softcxl.test=1" in guest.output("cat /proc/cmdline")
    assert guest.output("uname -r").strip() == guest.release == guest.parts.kernel.release
    # a command hears Ctrl-C, signal 2
    ignored = guest.output("awk '/SigIgn/ {print $2}' /proc/self/status")
    assert not int(ignored, 16) & 1 << (signal.SIGINT - 1)


def test_modules(guest: Guest) -> None:
    loaded = {line.split()[0] for line in guest.output("lsmod").splitlines()[1:]}
    assert {"cxl_acpi", "cxl_pci", "cxl_mem", "cxl_pmem", "device_dax", "kmem", "nd_pmem"} <= loaded
    # signed and of this kernel: nothing of ours taints it
    assert guest.output("cat /proc/sys/kernel/tainted").strip() == "0"
    # one that is loaded when it is asked for
    guest.output("dd if=/dev/zero of=/tmp/disk bs=1M count=16 2>/dev/null && mkfs.ext4 -q /tmp/disk")
    guest.output("modprobe loop && mount -t ext4 -o loop /tmp/disk /mnt && umount /mnt")


def test_share(guest: Guest, share: Path) -> None:
    (share / "from-host").write_text("hello")
    assert guest.output("cat /share/from-host") == "hello"
    guest.output("echo back >/share/from-guest")
    assert (share / "from-guest").read_text() == "back\n"


def test_command_that_takes_too_long(guest: Guest) -> None:
    with pytest.raises(
        CommandTimeout, match=r"'echo begun; sleep 1000' ran longer than 2 seconds and was killed"
    ):
        guest.run("echo begun; sleep 1000", timeout=2)
    assert guest.output("pidof sleep || echo none") == "none\n"


def test_guest_that_does_not_answer(guest: Guest) -> None:
    guest.monitor.execute("stop")
    with pytest.raises(GuestTimeout, match=r"could not be killed: the guest does not answer"):
        guest.run("true", timeout=0.1)
    guest.monitor.execute("cont")
    assert guest.output("echo back") == "back\n"


def test_shell_on_a_terminal(guest: Guest) -> None:
    ours, theirs = pty.openpty()
    typed = [
        (b"# ", b"stty size; cat\n"),
        (b"24 80", b"echo\n"),
        # once by the terminal and once by cat, which therefore runs and is what Ctrl-C ends
        (b"echo\r\necho\r\n", b"\x03"),
        (b"# ", b"exit 9\n"),
    ]
    screen = bytearray()

    def user() -> None:
        # waits for what a person would wait for before typing on
        for expected, keys in typed:
            at = len(screen)
            while expected not in screen[at:]:
                screen.extend(os.read(ours, 4096))
            os.write(ours, keys)

    thread = threading.Thread(target=user)
    thread.start()
    assert guest.shell(theirs, theirs) == 9
    thread.join()
    os.close(ours)
    os.close(theirs)
    assert guest.output("echo after") == "after\n"


def test_shell_without_a_terminal(guest: Guest) -> None:
    read, write = os.pipe()
    shown, show = os.pipe()
    os.write(write, b"echo $((6*7))\n")
    os.close(write)
    # the end of input ends the shell, with the status of its last command
    assert guest.shell(read, show) == 0
    os.close(show)
    with os.fdopen(shown) as file:
        assert "\n42\n" in file.read().replace("\r", "")
    os.close(read)


def test_reset_button(guest: Guest) -> None:
    guest.output("echo here >/tmp/mark")
    before = guest.agent.boot
    guest.reboot()
    assert guest.agent.boot != before
    assert guest.output("cat /tmp/mark 2>/dev/null || echo gone") == "gone\n"


def test_guest_that_restarts_itself(guest: Guest) -> None:
    with pytest.raises(GuestGone, match=r"The guest restarted by itself"):
        guest.run("reboot -f")
    # and is there again
    assert guest.output("cat /proc/uptime")


def test_console_log(guest: Guest) -> None:
    guest.output("echo a word for the log >/dev/console")
    assert "a word for the log" in guest.console.tail()


def word(guest: Guest, address: int) -> int:
    """A 32-bit register as QEMU reads it; it knows none of other widths."""
    dump = guest.monitor.execute("human-monitor-command", command_line=f"xp /1wx {address:#x}")
    return int(dump.split(":")[1], 16)


def capabilities(guest: Guest, block: int) -> dict[int, int]:
    """The component registers at `block`: capability ids, and where each is from the array on."""
    array = block + 0x1000
    headers = [word(guest, array + 4 * index) for index in range(1, 1 + (word(guest, array) >> 24))]
    return {header & 0xFFFF: header >> 20 for header in headers}


HDM = 5


def test_registers_of_the_bridges_are_where_the_table_says(guest: Guest) -> None:
    blocks = bridge_registers(guest.plan)
    assert {bus: HDM in capabilities(guest, block) for bus, block in blocks.items()} == {12: False, 14: True}


def test_sixteen_bridges_come_in_reverse(parts: Parts) -> None:
    bridges = tuple(Bridge(f"hb{n}", 12 + 4 * n, (RootPort(f"rp{n}"),)) for n in range(16))
    plan = GuestPlan(memory=GiB // 2, bridges=bridges)
    with Guest(plan, parts, extra=["-set", "device.hb5.hdm_for_passthrough=off"]) as running:
        for bus, block in bridge_registers(plan).items():
            assert (HDM in capabilities(running, block)) == (bus != bridges[5].bus)
        assert running.output("ls /sys/bus/cxl/devices | grep -c port").strip() == "16"


def test_programmed_decoders_survive_restarts(parts: Parts) -> None:
    memory = os.memfd_create("window")
    os.ftruncate(memory, GiB)
    plan = GuestPlan(
        memory=GiB // 2,
        bridges=BRIDGES,
        windows=(Window("w0", 4 * GiB, GiB, memory, (12, 14)),),
        decoders=(BridgeDecoder(14, 4 * GiB, GiB, 256, (1, 0)), BridgeDecoder(12, 4 * GiB, GiB, 256, (0,))),
    )

    def committed(running: Guest) -> list[bool]:
        found = []
        for block in bridge_registers(plan).values():
            control = block + 0x1000 + capabilities(running, block)[HDM] + 0x20
            found.append(bool(word(running, control) & 0x400))
        return found

    with Guest(plan, parts) as running:
        assert committed(running) == [True, True]
        running.reboot()
        assert committed(running) == [True, True]
        with pytest.raises(GuestGone, match=r"restarted by itself"):
            running.run("reboot -f")
        running.output("true")
        assert committed(running) == [True, True]
        with pytest.raises(GuestGone, match=r"powered off"):
            running.run("poweroff -f")
    os.close(memory)


def test_panic(parts: Parts) -> None:
    with Guest(SMALL, parts) as running:
        with pytest.raises(
            GuestPanic, match=r"The guest's kernel panicked: sysrq triggered crash\."
        ) as caught:
            running.run("echo c >/proc/sysrq-trigger")
        assert "end Kernel panic" in caught.value.console
        with pytest.raises(GuestPanic):
            running.run("true")
        running.reboot()
        assert running.output("echo alive") == "alive\n"


def test_power_off(parts: Parts) -> None:
    with Guest(SMALL, parts) as running:
        with pytest.raises(GuestGone, match=r"The guest powered off"):
            running.run("poweroff -f")
        assert running.wait_gone(60)
        with pytest.raises(GuestGone):
            running.run("true")


@pytest.mark.parametrize(
    ("append", "error", "sentence"),
    [
        (["rdinit=/nowhere", "panic=0"], GuestPanic, r"kernel panicked: .*(root fs|init)"),
        (
            ["initcall_blacklist=cxl_core_init"],
            GuestUnfit,
            r"this kernel has no CXL: it needs CONFIG_CXL_BUS",
        ),
        (["initcall_blacklist=virtio_console_init"], GuestUnfit, r"there is no port to the host"),
    ],
)
def test_kernels_that_will_not_do(
    parts: Parts, append: list[str], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        Guest(SMALL, parts, append=append).start()


def test_boot_that_takes_too_long(parts: Parts) -> None:
    slow = Guest(SMALL, parts, boot_timeout=0.5, append=["rdinit=/bin/false"])
    with pytest.raises(GuestTimeout, match=r"The guest did not come up within 0\.5 seconds"):
        slow.start()
    assert slow.wait_gone(60)


@pytest.mark.parametrize(
    ("plan", "extra", "sentence"),
    [
        (
            SMALL,
            ["-device", "flux-capacitor"],
            r"QEMU did not start: .*'flux-capacitor' is not a valid device",
        ),
        (
            GuestPlan(
                bridges=(Bridge("hb0", 12, (RootPort("rp0", Endpoint("mem0", Path("/gone/x.sock"))),)),)
            ),
            [],
            r"QEMU did not start: .*No such file or directory",
        ),
        (
            GuestPlan(bridges=BRIDGES, windows=(Window("w0", 4 * GiB, GiB, Path("/gone/window"), (12,)),)),
            [],
            r"QEMU did not start: .*/gone/window",
        ),
    ],
)
def test_qemu_that_will_not_start(parts: Parts, plan: GuestPlan, extra: list[str], sentence: str) -> None:
    with pytest.raises(LaunchError, match=sentence):
        Guest(plan, parts, extra=extra).start()


PARENT = """
import sys
from softcxl.lab.firmware import bridge_registers
from softcxl.lab.guest import Guest
from softcxl.lab.plan import GuestPlan
from softcxl.lab.setup import status
with Guest(GuestPlan(memory=512 << 20), status().parts()) as guest:
    print(guest.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_qemu_outlives_its_parent(parts: Parts, end: signal.Signals) -> None:
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": source},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        watched = os.pidfd_open(pid)
        parent.send_signal(end)
        parent.wait()
    try:
        # readable when QEMU has ended; the test's own timeout is the bound
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.poll()
    finally:
        os.close(watched)


def open_files() -> list[str]:
    """What this process's descriptors are, less the one that looks."""
    gc.collect()  # what earlier tests have let go of is not ours
    return sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


def test_nothing_is_left_behind(parts: Parts) -> None:
    threads, files = set(threading.enumerate()), open_files()
    with Guest(SMALL, parts) as running:
        pid = running.pid
    assert not Path(f"/proc/{pid}").exists()
    assert set(threading.enumerate()) == threads
    assert open_files() == files
