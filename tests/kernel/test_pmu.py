"""Performance counters by Linux's own driver: bound, described in sysfs, and read by perf_event_open."""

from __future__ import annotations

import pytest

from softcxl import Fabric, Type3
from tests.kernel.conftest import Linux

KERNEL = "own"
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, cpmu: true, interrupts: msix}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 512MiB, targets: [hb0]}]
"""
PMU = "/sys/bus/event_source/devices/cxl_pmu_mem0.0"
LINES = {
    "m2s_req_memrd": 2,
    "m2s_rwd_memwr": 3,
    "m2s_rwd_memwrptl": 1,
    "s2m_ndr_cmp": 4,
    "s2m_drs_memdata": 2,
}
"""How often each event of CXL.mem comes with one of `accesses`."""
OWN_COMMANDS = 0x1E98 << 48 | 0xFF00 << 32 | 1 << 0


@pytest.fixture
def device(fabric: Fabric) -> Type3:
    return fabric.devices["mem0"]


def count(guest: Linux, config: int, command: str) -> int:
    number = int(guest.sh(f"cat {PMU}/type"))
    return int(guest.sh(f"softcxl-count {number} {config:#x} {command} 2>&1 | tail -n 1"))


def test_linux_lists_the_events_that_the_device_has(guest: Linux) -> None:
    names = set(guest.sh(f"ls {PMU}/events").split())
    assert names == {
        "clock_ticks",
        "m2s_req_memrd",
        "m2s_rwd_memwr",
        "m2s_rwd_memwrptl",
        "s2m_ndr_cmp",
        "s2m_drs_memdata",
    }
    assert guest.sh(f"cat {PMU}/events/m2s_req_memrd").strip() == "config=0x1e98002000000002"
    assert guest.sh(f"cat {PMU}/format/hdm").strip() == "config2:0-15"
    assert guest.sh("ls /sys/bus/cxl/devices").split().count("pmu_mem0.0") == 1
    assert "cxl_pmu_mem0.0_overflow" in guest.sh("cat /proc/interrupts")


def test_mailbox_commands_are_counted(guest: Linux) -> None:
    config = OWN_COMMANDS
    few = count(guest, config, "/usr/bin/softcxl-memory commands /dev/cxl/mem0 10")
    many = count(guest, config, "/usr/bin/softcxl-memory commands /dev/cxl/mem0 300")
    assert (few, many) == (10, 300)
    assert count(guest, config, "/bin/true") == 0


def test_clock_ticks(guest: Linux) -> None:
    config = int(guest.sh(f"cat {PMU}/events/clock_ticks").strip().removeprefix("config="), 16)
    assert count(guest, config, "/bin/sleep 1") >= 1_000_000_000


@pytest.fixture
def accesses(device: Type3, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every mailbox command a host reads two lines of the device's and writes three of them and a half; a guest's
    own loads and stores go past the device."""
    monitor = device.cpmu
    assert monitor is not None

    def served() -> None:
        monitor.command()
        monitor.read(0, 0, 128)
        monitor.write(0, 0, 3 * 64 + 32)

    monkeypatch.setattr(device.mailbox, "served", served)


@pytest.mark.parametrize(("event", "each"), LINES.items())
@pytest.mark.usefixtures("accesses")
def test_accesses_are_counted(guest: Linux, device: Type3, event: str, each: int) -> None:
    config = int(guest.sh(f"cat {PMU}/events/{event}").strip().removeprefix("config="), 16)
    assert count(guest, config, "/usr/bin/softcxl-memory commands /dev/cxl/mem0 10") == 10 * each
    assert device.traffic is None  # the counter was let go
