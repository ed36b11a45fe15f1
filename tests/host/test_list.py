"""The JSON of ``cxl list``: names, order, nesting and values, from ndctl's json.c and filter.c."""

from dataclasses import replace

import pytest

from softcxl.host.iomem import iomem
from softcxl.host.list import Include
from softcxl.host.system import System
from softcxl.spec.command.firmware import GET_FW_INFO
from softcxl.spec.command.health import GET_ALERT_CONFIGURATION, GET_HEALTH_INFO
from softcxl.spec.command.logs import GET_SUPPORTED_LOGS
from softcxl.spec.command.poison import GET_POISON_LIST, INJECT_POISON
from tests.host.fake import GIB, MIB, machine, switch

SHARE = 256 * MIB


@pytest.fixture
def system(made):
    a, b = made(2, volatile=SHARE, persistent=SHARE, label_storage=128 << 10)
    (c,) = made(1, volatile=0, persistent=SHARE)
    system = System(machine([switch(a), b], [c], windows=[{}, {"targets": (1,), "qtg": 42}]))
    system.create_region(["mem0", "mem1"], type="ram", granularity=1024)
    return system


MEM0 = {
    "memdev": "mem0",
    "pmem_size": SHARE,
    "pmem_qos_class": 0,
    "ram_size": SHARE,
    "ram_qos_class": 0,
    "serial": 0xC0,
    "host": "0000:0f:00.0",
    "firmware_version": "softcxl 1",
    "poison_injectable": True,
}
REGION = {
    "region": "region0",
    "resource": 4 * GIB,
    "size": 2 * SHARE,
    "type": "ram",
    "interleave_ways": 2,
    "interleave_granularity": 1024,
    "decode_state": "commit",
    "locked": False,
}


def test_without_options_memory_devices_and_regions(system):
    memdevs, regions = system.listing()
    # a port's own endpoints, then those of the ports below it
    assert [one["memdev"] for one in memdevs["memdevs"]] == ["mem1", "mem0", "mem2"]
    assert memdevs["memdevs"][1] == MEM0
    assert list(memdevs["memdevs"][1]) == list(MEM0)
    assert regions == {"regions": [REGION]}
    assert list(regions["regions"][0]) == list(REGION)


def test_one_kind_is_not_in_a_container(system):
    assert system.listing(Include(regions=True)) == [REGION]
    assert system.listing(Include(buses=True)) == [
        {"bus": "root0", "provider": "ACPI.CXL", "injectable_protocol_errors": []}
    ]
    assert [one["endpoint"] for one in system.listing(Include(endpoints=True))] == [
        "endpoint5",
        "endpoint4",
        "endpoint6",
    ]


def test_root_decoders(system):
    first, second = system.listing(Include(decoders=True))[0]["root decoders"]
    assert first == {
        "decoder": "decoder0.0",
        "resource": 4 * GIB,
        "size": GIB,
        "interleave_ways": 1,
        "max_available_extent": GIB - 2 * SHARE,
        "pmem_capable": True,
        "volatile_capable": True,
        "qos_class": 0,
        "nr_targets": 1,
    }
    assert second["qos_class"] == 42
    assert second["max_available_extent"] == GIB


def test_decoders_stand_in_three_groups_when_nothing_is_above_them(system):
    root, ports, endpoints = system.listing(Include(decoders=True))
    assert list(root) == ["root decoders"]
    assert ports == {
        "port decoders": [
            {
                "decoder": "decoder1.0",
                "resource": 4 * GIB,
                "size": 2 * SHARE,
                "interleave_ways": 2,
                "interleave_granularity": 1024,
                "region": "region0",
                "nr_targets": 2,
            },
            {
                "decoder": "decoder3.0",
                "resource": 4 * GIB,
                "size": 2 * SHARE,
                "interleave_ways": 1,
                "region": "region0",
                "nr_targets": 1,
            },
        ]
    }
    assert endpoints["endpoint decoders"][0] == {
        "decoder": "decoder5.0",
        "resource": 4 * GIB,
        "size": 2 * SHARE,
        "interleave_ways": 2,
        "interleave_granularity": 1024,
        "region": "region0",
        "dpa_resource": 0,
        "dpa_size": SHARE,
        "mode": "ram",
    }


def test_everything_nests(system):
    (bus,) = system.listing(verbose=1)
    assert list(bus) == [
        *("bus", "provider", "injectable_protocol_errors", "nr_dports", "dports"),
        *("ports:root0", "decoders:root0"),
    ]
    assert bus["dports"] == [
        {"dport": "pci0000:0c", "alias": "ACPI0016:00", "id": 0x0C, "protocol_injectable": False},
        {"dport": "pci0000:2c", "alias": "ACPI0016:01", "id": 0x2C, "protocol_injectable": False},
    ]
    port, other = bus["ports:root0"]
    assert list(port) == [
        *("port", "host", "depth", "decoders_committed", "nr_dports", "dports"),
        *("ports:port1", "endpoints:port1", "decoders:port1"),
    ]
    assert (port["host"], port["depth"]) == ("pci0000:0c", 1)
    assert (port["decoders_committed"], other["decoders_committed"]) == (1, 0)
    (endpoint,) = port["endpoints:port1"]
    assert endpoint["endpoint"] == "endpoint5"
    assert endpoint["host"] == "mem1"
    assert endpoint["parent_dport"] == "0000:0c:01.0"
    assert endpoint["memdev"]["memdev"] == "mem1"
    (decoder,) = port["decoders:port1"]
    # targets and mappings come with the highest position first: libcxl puts each before the last
    assert decoder["targets"] == [
        {"target": "0000:0c:01.0", "position": 1, "id": 1},
        {"target": "0000:0c:00.0", "position": 0, "id": 0},
    ]
    (region,) = bus["decoders:root0"][0]["regions:decoder0.0"]
    assert region["mappings"] == [
        {"position": 1, "memdev": "mem1", "decoder": "decoder5.0"},
        {"position": 0, "memdev": "mem0", "decoder": "decoder4.0"},
    ]
    (switch_port,) = port["ports:port1"]
    assert switch_port["endpoints:port3"][0]["decoders:endpoint4"][0]["decoder"] == "decoder4.0"


def test_memory_devices_go_into_endpoints(system):
    (port, _) = system.listing(Include(ports=True, memdevs=True))
    assert [one["memdev"] for one in port["memdevs:port1"]] == ["mem1"]
    assert [one["memdev"] for one in port["ports:port1"][0]["memdevs:port3"]] == ["mem0"]
    (bus,) = system.listing(Include(buses=True, memdevs=True, regions=True))
    assert [one["memdev"] for one in bus["memdevs:root0"]] == ["mem1", "mem0", "mem2"]
    assert bus["regions:root0"] == [REGION]
    (_, endpoint, _) = system.listing(Include(endpoints=True, memdevs=True))
    assert endpoint["memdev"] == MEM0


def test_idle_decoders(system):
    (*_, endpoints) = system.listing(Include(decoders=True, idle=True))
    idle = endpoints["endpoint decoders"][1]
    assert idle == {"decoder": "decoder5.1", "interleave_ways": 1, "state": "disabled"}


def test_filters(system):
    assert [one["memdev"] for one in system.listing(Include(only_memdevs=frozenset({"mem1"})))] == ["mem1"]
    assert system.listing(Include(only_regions=frozenset({"region0"}))) == [REGION]
    (port,) = system.listing(Include(ports=True, only_memdevs=frozenset({"mem2"})))
    assert port["port"] == "port2"
    assert system.listing(Include(regions=True, only_regions=frozenset({"region9"}))) == []


def test_what_three_v_ask_the_device(system):
    device = system.machine.devices()[0]
    device.set_health(life_used=15, device_temperature=25)
    device.inject_poison(1024 + 64)
    (bus,) = system.listing(Include(memdevs=True), verbose=3)
    port = bus["ports:root0"][0]["ports:port1"][0]
    memdev = port["endpoints:port3"][0]["memdev"]
    assert memdev["health"]["life_used_percent"] == 15
    assert memdev["health"]["temperature"] == 25
    assert memdev["health"]["media_normal"] is True
    assert memdev["partition_info"]["total_size"] == 2 * SHARE
    assert memdev["firmware"]["active_slot"] == 1
    assert memdev["media_errors"] == [{"offset": 1024 + 64, "length": 64, "source": "Internal"}]
    (region,) = bus["decoders:root0"][0]["regions:decoder0.0"]
    # position 0: its second granule begins at 2 x 1024
    assert region["media_errors"] == [{"offset": 2048 + 64, "length": 64, "source": "Internal"}]
    assert region["daxregion"]["size"] == region["size"]


def test_what_a_device_has_no_answer_to_is_left_out(system):
    device = system.machine.devices()[2]
    for one in (GET_HEALTH_INFO, GET_ALERT_CONFIGURATION, GET_FW_INFO, GET_POISON_LIST, GET_SUPPORTED_LOGS):
        del device.cci.handlers[one.opcode]
    given = Include(only_memdevs=frozenset({"mem2"}), memdevs=True, health=True, alert_config=True)
    (memdev,) = system.listing(replace(given, firmware=True, media_errors=True))
    assert list(memdev) == ["memdev", "pmem_size", "pmem_qos_class", "serial", "host", "firmware_version"]
    region = system.create_region(["mem2"], decoder=1)
    found = system.listing(Include(only_regions=frozenset({region.name}), media_errors=True))
    assert "media_errors" not in found[0]


def test_poison_is_injectable_where_the_device_has_the_command(system):
    del system.machine.devices()[2].cci.handlers[INJECT_POISON.opcode]
    found = system.listing(Include(memdevs=True))
    assert {one["memdev"]: one["poison_injectable"] for one in found} == {
        "mem0": True,
        "mem1": True,
        "mem2": False,
    }


def test_a_region_that_lost_a_device_is_idle(system):
    system.hot_remove("0000:0c:01.0")
    assert system.listing(Include(regions=True)) == []
    (region,) = system.listing(Include(regions=True, targets=True, idle=True))
    assert (region["decode_state"], region["state"]) == ("reset", "disabled")
    assert [one["position"] for one in region["mappings"]] == [0]


def test_a_class_that_no_window_has_is_a_mismatch(made):
    system = System(machine(made(1), windows=[{"qtg": 42}]))
    system.create_region()
    memdevs, regions = system.listing()
    assert "ram_qos_class" not in memdevs["memdevs"][0]
    assert regions["regions"][0]["qos_class_mismatch"] is True


def test_iomem(system):
    assert iomem(system) == (
        "100000000-13fffffff : CXL Window 0\n"
        "  100000000-11fffffff : region0\n"
        "    100000000-11fffffff : dax0.0\n"
        "140000000-17fffffff : CXL Window 1"
    )
