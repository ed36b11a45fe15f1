"""Events and poison with host addresses: by interrupt, typed, with the fields of Linux's tracepoints."""

from __future__ import annotations

from uuid import UUID

import pytest

from softcxl import Fabric
from softcxl.host import firmware
from softcxl.host.events import NO_HPA, Event, Overflow, PoisonTrace
from softcxl.host.system import System
from softcxl.host.traces import to_json
from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import (
    DRAM_EVENT,
    GENERAL_MEDIA_EVENT,
    MEMORY_MODULE_EVENT,
    MEMORY_SPARING_EVENT,
    DramEvent,
    EventAddress,
    EventDescriptor,
    EventHeader,
    EventRecord,
    GeneralMediaEvent,
    MemoryModuleEvent,
    MemorySparingEvent,
)
from softcxl.switch.host_bridge import HostBridge
from softcxl.switch.machine import HostMachine
from tests.host.fake import machine

GIB, MIB = 1 << 30, 1 << 20
VENDOR = UUID("5e6f7a8b-0102-4304-8506-0708090a0b0c")
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, persistent: 256MiB, label_storage: 128KiB, serial: 0xC0FFEE01}
  mem1: {volatile: 256MiB, persistent: 256MiB, label_storage: 128KiB, serial: 0xC0FFEE02}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, mem1]}}
    windows: [{size: 1GiB, targets: [hb0], granularity: 256}]
"""


@pytest.fixture
def fabric():
    with Fabric.loads(TOPOLOGY) as fabric:
        yield fabric


def general_media(dpa):
    return GeneralMediaEvent(
        header=EventHeader(identifier=GENERAL_MEDIA_EVENT),
        address=EventAddress.make(dpa=dpa // 64, volatile=True),
    )


def test_the_logs_are_read_from_the_gravest_and_cleared(fabric):
    system = fabric.hosts["alpha"].boot()
    device = fabric.devices["mem0"]
    for log in (EventLog.INFORMATIONAL, EventLog.FATAL, EventLog.WARNING, EventLog.FAILURE):
        device.record_event(log, general_media(0x1000))
    found = system.events()
    assert [one.log for one in found] == [3, 2, 1, 0]
    assert {type(one.record) for one in found} == {GeneralMediaEvent}
    assert [len(log.records) for log in device.events.logs.values()] == [0, 0, 0, 0]
    assert system.events() == []


def test_only_who_interrupts_is_asked(fabric, monkeypatch):
    system = fabric.hosts["alpha"].boot()
    assert system.events() == []
    asked: list[str] = []

    def listened(name, send):
        def ask(*given):
            asked.append(name)
            return send(*given)

        return ask

    for name, memdev in system.memdevs.items():
        monkeypatch.setattr(memdev.mailbox, "send", listened(name, memdev.mailbox.send))
    assert system.events() == []
    assert asked == []
    fabric.devices["mem1"].record_event(EventLog.WARNING, general_media(0))
    assert [one.memdev.name for one in system.events()] == ["mem1"]
    # the record, that there are no more, and in between that it is cleared
    assert asked == ["mem1"] * 3


def test_a_machine_without_interrupts_is_looked_at(made):
    [device] = made(1)
    system = System(machine([device]))
    assert system.events() == []
    device.record_event(EventLog.WARNING, general_media(0x40))
    assert [one.dpa for one in system.events() if isinstance(one, Event)] == [0x40]


def test_a_device_that_signals_by_msix(made, monkeypatch):
    [device] = made(1, interrupts="msix")
    bridge = HostBridge("hb", 1, uid=0)
    bridge.ports[0].plug(device)
    real = HostMachine([bridge])
    real.tables = firmware.tables(
        [firmware.Bridge(0, dict(real.host_bridges)[0], real.registers["hb"])], [], ecam=real.layout.ecam
    )
    system = System(real)
    assert system.events() == []
    with monkeypatch.context() as nobody:
        nobody.setattr(system.memdevs["mem0"].mailbox, "send", None)  # who has not interrupted is not asked
        assert system.events() == []
    device.record_event(EventLog.FATAL, general_media(0x40))
    assert [one.dpa for one in system.events() if isinstance(one, Event)] == [0x40]


def test_more_records_than_an_answer_or_a_clear_holds(fabric):
    system = fabric.hosts["alpha"].boot()
    device = fabric.devices["mem0"]
    depth = device.events.logs[EventLog.FAILURE].depth
    for number in range(depth + 3):
        device.record_event(EventLog.FAILURE, general_media(64 * number))
    found = system.events()
    events = [one for one in found if isinstance(one, Event)]
    assert [one.dpa for one in events] == [64 * number for number in range(depth)]
    [overflow] = [one for one in found if isinstance(one, Overflow)]
    assert (overflow.memdev.name, overflow.log, overflow.count) == ("mem0", EventLog.FAILURE, 3)
    assert system.events() == []


def test_in_a_region_an_event_has_its_host_address(fabric):
    system = fabric.hosts["alpha"].boot()
    uuid = UUID("0a0b0c0d-0102-4304-8506-0708090a0b0c")
    region = system.create_region(["mem0", "mem1"], type="pmem", granularity=1024, uuid=uuid)
    device = fabric.devices["mem1"]
    device.record_event(EventLog.WARNING, general_media(0x10000000 + 3 * 1024 + 0x40))
    device.record_event(EventLog.WARNING, general_media(0x40))
    inside, outside = system.events()
    # the fourth granule of the second of two, so the eighth of the region
    assert inside.hpa == 4 * GIB + 7 * 1024 + 0x40
    assert (inside.region, inside.place.region_uuid) == (region.name, uuid)
    assert (outside.dpa, outside.hpa, outside.region, outside.place.region_uuid) == (
        0x40,
        NO_HPA,
        "",
        UUID(int=0),
    )
    assert NO_HPA == 0xFFFFFFFFFFFFFFFF
    assert [repr(inside), repr(outside)] == [
        "<warning event of mem1: GeneralMediaEvent, DPA 0x10000c40, HPA 0x100001c40 in region0>",
        "<warning event of mem1: GeneralMediaEvent, DPA 0x40>",
    ]
    shown = to_json(inside)
    assert {key: shown[key] for key in ("hpa", "region_name", "region_uuid", "dpa", "dpa_flags")} == {
        "hpa": inside.hpa,
        "region_name": "region0",
        "region_uuid": str(uuid),
        "dpa": inside.dpa,
        "dpa_flags": 1,
    }


def test_each_kind_of_record_under_the_name_of_its_tracepoint(fabric):
    system = fabric.hosts["alpha"].boot()
    device = fabric.devices["mem0"]
    kinds = {
        "cxl_general_media": general_media(0),
        "cxl_dram": DramEvent(
            header=EventHeader(identifier=DRAM_EVENT),
            address=EventAddress.make(dpa=2),
            row=0x10203,
            corrected_error_count=17,
            descriptor=EventDescriptor.make(threshold=True),
        ),
        "cxl_memory_module": MemoryModuleEvent(
            header=EventHeader(identifier=MEMORY_MODULE_EVENT), event_type=3
        ),
        "cxl_memory_sparing": MemorySparingEvent(
            header=EventHeader(identifier=MEMORY_SPARING_EVENT), result=4
        ),
        "cxl_generic_event": EventRecord(header=EventHeader(identifier=VENDOR), data=bytes(range(80))),
    }
    for event in kinds.values():
        assert device.record_event(EventLog.WARNING, event)
    shown = [to_json(one) for one in system.events()]
    assert [one["event"] for one in shown] == list(kinds)
    common = [
        "system",
        "event",
        "timestamp",
        "memdev",
        "host",
        "log",
        "hdr_uuid",
        "serial",
        "hdr_flags",
        "hdr_handle",
    ]
    common += [
        "hdr_related_handle",
        "hdr_timestamp",
        "hdr_length",
        "hdr_maint_op_class",
        "hdr_maint_op_sub_class",
    ]
    common += ["hdr_ld_id", "hdr_head_id"]
    assert all(list(one)[:17] == common for one in shown)
    assert (shown[0]["log"], shown[0]["serial"], shown[0]["hdr_length"]) == (1, 0xC0FFEE01, 128)
    assert (shown[1]["row"], shown[1]["dpa"], shown[1]["cvme_count"]) == (0x10203, 0x80, 17)
    assert shown[0]["cme_count"] == 0
    assert (shown[2]["event_type"], shown[3]["result"]) == (3, 4)
    assert shown[4]["data"] == list(range(80))
    assert shown[4]["hdr_uuid"] == str(VENDOR)


def test_poison_that_is_listed_injected_and_cleared(fabric):
    system = fabric.hosts["alpha"].boot()
    system.events()
    system.create_region(["mem0", "mem1"], type="ram", granularity=256)
    sysfs = system.sysfs
    sysfs["kernel/debug/cxl/mem1/inject_poison"] = "0x140"
    sysfs["bus/cxl/devices/mem1/trigger_poison_list"] = "1"
    sysfs["kernel/debug/cxl/mem1/clear_poison"] = "0x140"
    found = [one for one in system.events() if isinstance(one, PoisonTrace)]
    # granule 1 of the second of two devices
    assert [(one.kind, one.place.dpa, one.place.hpa, one.place.region, one.length) for one in found] == [
        (kind, 0x140, 4 * GIB + 3 * 256 + 0x40, "region0", 64) for kind in ("Inject", "List", "Clear")
    ]
    shown = to_json(found[1])
    assert list(shown) == [
        *(
            "system",
            "event",
            "timestamp",
            "memdev",
            "host",
            "serial",
            "trace_type",
            "region",
            "overflow_ts",
            "hpa",
        ),
        *("hpa_alias0", "dpa", "dpa_length", "uuid", "source", "flags"),
    ]
    # 3: injected
    assert (shown["event"], shown["trace_type"], shown["source"]) == ("cxl_poison", 0, 3)


def test_a_device_that_has_left_is_not_asked(fabric):
    host = fabric.hosts["alpha"]
    system = host.boot()
    system.events()
    fabric.devices["mem0"].record_event(EventLog.WARNING, general_media(0))
    system.hot_remove(system.memdevs["mem0"].node.parent.name)
    assert system.events() == []
    assert system.problems == []


@pytest.mark.parametrize("method", ["flr", "cxl_bus", "cxl_reset"])
def test_after_a_reset_events_come_as_before(fabric, method):
    system = fabric.hosts["alpha"].boot()
    system.events()
    if method not in system.reset_methods("mem0"):
        pytest.fail(f"{method} is none of {system.reset_methods('mem0')}")
    system.reset("mem0", method)
    system.events()
    for dpa in (0x40, 0x80):
        fabric.devices["mem0"].record_event(EventLog.WARNING, general_media(dpa))
        assert [one.dpa for one in system.events() if isinstance(one, Event)] == [dpa]


def test_who_comes_and_goes(fabric):
    host = fabric.hosts["alpha"]
    system = host.boot()
    system.events()
    for _ in range(3):
        memdev = system.memdevs["mem0"]
        port = memdev.node.parent.name
        host.machine.bridges[0].ports[0].remove()
        system.hot_remove(port)
        del memdev
        host.machine.bridges[0].ports[0].plug(fabric.devices["mem0"])
        [memdev] = system.hot_add(port)
        fabric.devices["mem0"].record_event(EventLog.WARNING, general_media(0x40))
        assert [one.memdev for one in system.events()] == [memdev]
        fabric.devices["mem0"].record_event(EventLog.WARNING, general_media(0x40))
        assert [one.memdev for one in system.events()] == [memdev]
