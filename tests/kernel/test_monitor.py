"""`cxl monitor` in a guest, and `softcxl events` of a host in this process: the same topology, the same things done to
the device, the same JSON. Every event that the kernel traces is among them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest

from softcxl import Fabric, Type3
from softcxl.host.system import System
from softcxl.host.traces import to_json
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.health import SET_ALERT_CONFIGURATION, Alerts, SetAlertConfigurationRequest
from softcxl.spec.command.poison import PoisonSource
from softcxl.spec.cxl.events import (
    DRAM_EVENT,
    GENERAL_MEDIA_EVENT,
    MEMORY_MODULE_EVENT,
    MEMORY_SPARING_EVENT,
    DeviceHealth,
    DramEvent,
    EventAddress,
    EventDescriptor,
    EventHeader,
    EventRecord,
    GeneralMediaEvent,
    MediaHealth,
    MemoryModuleEvent,
    MemorySparingEvent,
)
from tests.kernel.conftest import Linux
from tests.kernel.traces import until

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, persistent: 256MiB, serial: 0xC0FFEE01}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 1GiB, targets: [hb0]}]
"""
KERNEL = "own"
LOG = "/tmp/monitor"
INSTANCE = "/sys/kernel/tracing/instances/cxl_monitor"
CLOCKS = {"timestamp", "hdr_timestamp", "host"}
"""What differs between two runs: clocks, and the slot that QEMU has the device in."""

ADDRESS = EventAddress.make(dpa=0x123440 // 64, volatile=True)
VENDOR = UUID("5e6f7a8b-0102-4304-8506-0708090a0b0c")


def general_media() -> GeneralMediaEvent:
    return GeneralMediaEvent(
        header=EventHeader(identifier=GENERAL_MEDIA_EVENT, maintenance_class=2, related_handle=7),
        address=ADDRESS,
        descriptor=EventDescriptor.make(uncorrectable=True, threshold=True),
        event_type=2,
        transaction_type=3,
        channel=5,
        rank=6,
        corrected_error_count=0x010203,
    )


def dram() -> DramEvent:
    return DramEvent(
        header=EventHeader(identifier=DRAM_EVENT),
        address=ADDRESS,
        channel=1,
        rank=2,
        nibble_mask=0x0F00,
        bank_group=3,
        bank=4,
        row=0x050607,
        column=0x0809,
        correction_mask=bytes(range(32)),
    )


RECORDS: dict[str, Callable[[], Any]] = {
    "cxl_general_media": general_media,
    "cxl_dram": dram,
    "cxl_memory_module": lambda: MemoryModuleEvent(
        header=EventHeader(identifier=MEMORY_MODULE_EVENT),
        event_type=3,
        health=DeviceHealth(media_status=MediaHealth.NORMAL, life_used=44, device_temperature=-7),
    ),
    "cxl_memory_sparing": lambda: MemorySparingEvent(
        header=EventHeader(identifier=MEMORY_SPARING_EVENT), row=0x0A0B0C, resources_available=300
    ),
    "cxl_generic_event": lambda: EventRecord(header=EventHeader(identifier=VENDOR), data=bytes(range(80))),
}


@pytest.fixture(scope="module")
def twin() -> Iterator[Fabric]:
    """The same fabric once more, for a host in this process."""
    with Fabric.loads(TOPOLOGY) as live:
        yield live


@pytest.fixture(scope="module")
def system(twin: Fabric) -> System:
    system = twin.hosts["alpha"].boot()
    system.create_region(["mem0"], type="ram")
    system.events()
    return system


@pytest.fixture(scope="module")
def monitor(guest: Linux) -> Iterator[Linux]:
    """The guest with a region, and `cxl monitor` in it."""
    made = guest.create_region(["mem0"])
    guest.sh(f"cxl monitor -l {LOG} --daemon; until [ -e {INSTANCE}/buffer_percent ]; do usleep 10000; done")
    # by default a poll of the traces waits until their buffer is half full
    guest.sh(f"echo 0 > {INSTANCE}/buffer_percent")
    guest.sh(f"until [ $(cat {INSTANCE}/events/cxl/enable) = 1 ]; do usleep 10000; done")
    yield guest
    guest.sh(f"cxl destroy-region -f {made['region']}")


def printed(guest: Linux, count: int) -> list[dict[str, Any]]:
    """What `cxl monitor` has printed, once there are `count` of them; they are forgotten then."""

    def look() -> list[dict[str, Any]]:
        lines = guest.sh(f"grep ^{{ {LOG} || true").splitlines()
        return [json.loads(line) for line in lines]

    found = until(look, lambda objects: len(objects) >= count)
    guest.sh(f": > {LOG}")
    return found


def compared(objects: list[dict[str, Any]]) -> list[str]:
    """Objects as text to compare, key by key in order, without what two runs cannot have alike."""
    return sorted(
        json.dumps({key: value for key, value in one.items() if key not in CLOCKS}) for one in objects
    )


def devices(fabric: Fabric, twin: Fabric) -> list[Type3]:
    return [fabric.devices["mem0"], twin.devices["mem0"]]


@pytest.mark.parametrize("event", RECORDS)
def test_an_event_of_each_kind(
    monitor: Linux, fabric: Fabric, twin: Fabric, system: System, event: str
) -> None:
    for device in devices(fabric, twin):
        assert device.record_event(EventLog.WARNING, RECORDS[event]())
    found = printed(monitor, 1)
    assert [one["event"] for one in found] == [event]
    assert compared(found) == compared([to_json(one) for one in system.events()])
    if event in ("cxl_general_media", "cxl_dram"):
        assert (found[0]["region_name"], found[0]["dpa"]) == ("region0", 0x123440)


def test_a_log_that_overflows(monitor: Linux, fabric: Fabric, twin: Fabric, system: System) -> None:
    for device in devices(fabric, twin):
        with device.lock:
            for _ in range(18):
                device.record_event(EventLog.FATAL, dram())
    found, own = printed(monitor, 16), [to_json(one) for one in system.events()]
    when = {"first_ts", "last_ts"}
    overflows = [
        [{k: v for k, v in one.items() if k not in when} for one in objects if one["event"] == "cxl_overflow"]
        for objects in (found, own)
    ]
    assert compared(overflows[0]) == compared(overflows[1])
    assert overflows[0][0]["count"] == 3
    assert [len(one) for one in (found, own)] == [16, 16]


def test_poison_that_is_listed(monitor: Linux, fabric: Fabric, twin: Fabric, system: System) -> None:
    for device in devices(fabric, twin):
        with device.lock:
            device.poison.map.add(0x1240, PoisonSource.INTERNAL)
            device.poison.map.add(0x8000, PoisonSource.VENDOR)
    monitor.sh("echo 1 > /sys/bus/cxl/devices/mem0/trigger_poison_list")
    system.sysfs["bus/cxl/devices/mem0/trigger_poison_list"] = 1
    found = printed(monitor, 2)
    assert compared(found) == compared([to_json(one) for one in system.events()])
    assert [(one["dpa"], one["source"]) for one in found] == [(0x1240, 2), (0x8000, 7)]
    for device in devices(fabric, twin):
        device.clear_poison(0, device.capacity.total)


def test_an_alert_that_is_passed(monitor: Linux, fabric: Fabric, twin: Fabric, system: System) -> None:
    """A warning set by cxl set-alert-config, here and by the same command there; then the device becomes warm."""
    monitor.sh("cxl set-alert-config --over-temperature-threshold=60 --over-temperature-alert=on mem0")
    request = SetAlertConfigurationRequest(
        valid=Alerts.make(over_temperature=True),
        enable=Alerts.make(over_temperature=True),
        over_temperature_warning=60,
    )
    system.memdev("mem0").mailbox.send(SET_ALERT_CONFIGURATION, request)
    for temperature in (59, 61, 30):
        for device in devices(fabric, twin):
            device.set_health(device_temperature=temperature)
    found = printed(monitor, 2)
    assert compared(found) == compared([to_json(one) for one in system.events()])
    assert [(one["log"], one["event_type"], one["device_temp"]) for one in found] == [
        (EventLog.WARNING, 3, 61),
        (EventLog.INFORMATIONAL, 3, 30),
    ]
