"""Poison and sanitize, as the kernel's own interfaces do them: debugfs, sysfs, tracepoints and `cxl list -L`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from softcxl import Fabric, Type3
from softcxl.spec.command.poison import PoisonSource
from tests.kernel.conftest import Linux
from tests.kernel.listing import Scene, Wanted, check_listing
from tests.kernel.traces import Traces, until

TOPOLOGY = """
devices:
  mem0: &pmem {volatile: 256MiB, persistent: 256MiB, serial: 0xC0FFEE01}
  mem1: {<<: *pmem, serial: 0xC0FFEE02}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem1]}}
    windows: [{size: 1GiB, targets: [hb0]}]
"""
MIB = 1 << 20
LINE = 64
GRANULE = 4096
SANITIZE = 0x4400
A_DAY = 86400.0
DEBUG = "/sys/kernel/debug/cxl"
SYSFS = "/sys/bus/cxl/devices"


def test_the_listing_field_by_field(guest: Linux) -> None:
    poison = [("mem0", 0), ("mem1", GRANULE + LINE), ("mem0", 256 * MIB + 2 * LINE)]
    check_listing(guest, "test_media+poison", Scene([Wanted(["mem1", "mem0"], granularity=GRANULE)], poison))


def offset_in_region(position: int, dpa: int) -> int:
    """Where DPA `dpa` of the device at `position` is in a 2-way region that begins at DPA 0 of both."""
    granule, rest = divmod(dpa, GRANULE)
    return (2 * granule + position) * GRANULE + rest


@pytest.fixture
def region(guest: Linux, fabric: Fabric) -> Iterator[dict[str, Any]]:
    """A 2-way region, mem1 at position 0 and mem0 at position 1."""
    made = guest.create_region(["mem1", "mem0"], granularity=GRANULE)
    yield made
    guest.sh(f"cxl destroy-region -f {made['region']}")
    for device in fabric.devices.values():
        device.clear_poison(0, device.capacity.total)


def test_poison_in_a_region_is_listed_at_its_place(
    guest: Linux, fabric: Fabric, region: dict[str, Any]
) -> None:
    mem0, mem1 = fabric.devices["mem0"], fabric.devices["mem1"]
    guest.sh(f"echo 0x3040 > {DEBUG}/{guest.memdev(mem0)}/inject_poison")
    guest.sh(f"echo 0x1000 > {DEBUG}/{guest.memdev(mem1)}/inject_poison")
    guest.sh(f"echo {offset_in_region(0, 0x5FC0):#x} > {DEBUG}/{region['region']}/inject_poison")
    assert mem0.inject_poison(0x8000, PoisonSource.EXTERNAL)
    assert mem0.inject_poison(0x8040, PoisonSource.EXTERNAL)
    assert 0x3040 in mem0.poison.map
    assert {0x1000, 0x5FC0} == {dpa for dpa, _, _ in mem1.poison.map.runs(0, mem1.capacity.total)}
    [listed] = guest.json(f"cxl list -R -r {region['region']} -L 2>/dev/null")
    found = {(one["offset"], one["length"], one["source"]) for one in listed["media_errors"]}
    assert found == {
        (offset_in_region(1, 0x3040), LINE, "Injected"),
        (offset_in_region(0, 0x1000), LINE, "Injected"),
        (offset_in_region(0, 0x5FC0), LINE, "Injected"),
        (offset_in_region(1, 0x8000), 2 * LINE, "External"),
    }


def test_a_poison_list_is_traced_with_host_addresses(
    guest: Linux, fabric: Fabric, region: dict[str, Any]
) -> None:
    mem0 = fabric.devices["mem0"]
    mem0.inject_poison(0x1240)
    traces = Traces(guest)
    guest.sh(f"echo 1 > {SYSFS}/{guest.memdev(mem0)}/trigger_poison_list")
    [inside] = traces.wait("cxl_poison")
    wanted = {
        "memdev": guest.memdev(mem0),
        "serial": str(0xC0FFEE01),
        "trace_type": "List",
        "region": region["region"],
        "hpa": hex(region["resource"] + offset_in_region(1, 0x1240)),
        "dpa": "0x1240",
        "dpa_length": "0x40",
        "source": "Internal",
        "flags": "",
        "overflow_time": "0",
    }
    assert {key: inside[key] for key in wanted} == wanted


def test_poison_outside_regions_is_traced_of_both_partitions(guest: Linux, fabric: Fabric) -> None:
    mem0 = fabric.devices["mem0"]
    mem0.inject_poison(0x3FC0)
    mem0.inject_poison(mem0.capacity.volatile + 0x40, PoisonSource.VENDOR)
    traces = Traces(guest)
    guest.sh(f"echo 1 > {SYSFS}/{guest.memdev(mem0)}/trigger_poison_list")
    found = [(one["region"], one["dpa"], one["source"]) for one in traces.wait("cxl_poison", 2)]
    assert found == [("", "0x3fc0", "Internal"), ("", "0x10000040", "Vendor")]
    assert mem0.clear_poison(0, mem0.capacity.total) == 2


def test_an_injection_is_an_event_and_its_end_leaves_zeros(
    guest: Linux, fabric: Fabric, region: dict[str, Any]
) -> None:
    mem1 = fabric.devices["mem1"]
    mem1.space.write(0x2000, b"\xa5" * 4 * LINE)
    traces = Traces(guest)
    guest.sh(f"echo 0x2040 > {DEBUG}/{guest.memdev(mem1)}/inject_poison")
    [event] = traces.wait("cxl_general_media")
    wanted = {
        "log": "Informational",
        "dpa": "2040",
        "dpa_flags": "VOLATILE",
        "transaction_type": "Host Inject Poison",
        "region": region["region"],
        "hpa": f"{region['resource'] + offset_in_region(0, 0x2040):x}",
    }
    assert {key: event[key] for key in wanted} == wanted
    guest.sh(f"echo 0x2040 > {DEBUG}/{guest.memdev(mem1)}/clear_poison")
    assert [one["trace_type"] for one in traces.wait("cxl_poison", 2)] == ["Inject", "Clear"]
    assert len(mem1.poison.map) == 0
    assert mem1.space.read(0x2000, 4 * LINE) == b"\xa5" * LINE + bytes(LINE) + b"\xa5" * 2 * LINE


@pytest.mark.parametrize("dpa", ["0x41", "0x20000000"])
def test_what_cannot_be_poisoned_is_refused(guest: Linux, fabric: Fabric, dpa: str) -> None:
    assert guest.run(f"echo {dpa} > {DEBUG}/{guest.memdev('mem0')}/inject_poison").status != 0
    assert len(fabric.devices["mem0"].poison.map) == 0


def test_a_list_longer_than_one_reply_is_fetched_whole(guest: Linux, fabric: Fabric) -> None:
    mem0 = fabric.devices["mem0"]
    wanted = [0x10000 + 2 * LINE * index for index in range(600)]  # a reply of 4096 bytes holds 254
    with mem0.lock:
        for dpa in wanted:
            mem0.poison.map.add(dpa, PoisonSource.INTERNAL)
    traces = Traces(guest)
    guest.sh(f"echo 1 > {SYSFS}/{guest.memdev(mem0)}/trigger_poison_list")
    assert [int(one["dpa"], 16) for one in traces.wait("cxl_poison", 600)] == wanted
    assert mem0.clear_poison(0, mem0.capacity.total) == 600


# -- sanitize ----------------------------------------------------------------------------------------------------


def state(guest: Linux, device: Type3) -> str:
    return guest.sh(f"cat {SYSFS}/{guest.memdev(device)}/security/state").strip()


def read_labels(guest: Linux, memdev: str) -> bytes:
    """The first 256 bytes of the label storage area."""
    return guest.run(f"cxl read-labels -s 256 {memdev}").stdout


def test_sanitize_destroys_everything_and_ends_with_an_interrupt(guest: Linux, fabric: Fabric) -> None:
    mem0, door = fabric.devices["mem0"], fabric.open_doors["mem0"]
    name = guest.memdev(mem0)
    for dpa in (0, 0x123456, 256 * MIB - 1, 256 * MIB, 512 * MIB - 4):
        mem0.space.write(dpa, b"\x5a"[: mem0.capacity.total - dpa])
    mem0.inject_poison(0x40)
    guest.sh(
        f"cxl disable-memdev {name} && cxl write-labels -i /init -s 256 {name} && cxl enable-memdev {name}"
    )
    assert read_labels(guest, name) == guest.machine.run("head -c 256 /init").stdout
    mem0.media.seconds = (
        A_DAY  # it ends when this test says so, and the kernel learns of it by interrupt alone
    )
    before = door.traffic.interrupts
    guest.sh(f"echo 1 > {SYSFS}/{name}/security/sanitize")
    assert state(guest, mem0) == "sanitize"
    assert mem0.media_disabled
    assert guest.run(f"echo 1 > {SYSFS}/{name}/security/sanitize").status != 0
    assert guest.run(f"cxl wait-sanitize -t 1 {name}").status != 0
    mem0.cci.finish()
    guest.sh(f"cxl wait-sanitize {name}")
    assert until(lambda: state(guest, mem0), lambda now: now == "disabled") == "disabled"
    assert door.traffic.interrupts > before
    assert not mem0.media_disabled
    assert list(mem0.space.home.data_ranges(0, mem0.capacity.total)) == []
    assert not any(mem0.space.read(dpa, 1) != b"\0" for dpa in (0, 0x123456, 256 * MIB - 1, 256 * MIB))
    assert len(mem0.poison.map) == 0
    assert read_labels(guest, name) == bytes(256)


def test_sanitize_is_refused_while_the_memory_is_in_a_region(
    guest: Linux, fabric: Fabric, region: dict[str, Any]
) -> None:
    mem1 = fabric.devices["mem1"]
    mem1.space.write(0x9000, b"to be kept")
    refused = guest.run(f"echo 1 > {SYSFS}/{guest.memdev(mem1)}/security/sanitize")
    assert refused.status != 0
    assert b"busy" in refused.stderr
    assert mem1.cci.background.opcode != SANITIZE
    assert mem1.space.read(0x9000, 10) == b"to be kept"
