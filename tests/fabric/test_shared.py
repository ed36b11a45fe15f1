"""Topologies of switches that hosts share, and of devices with logical devices: what is read, and what is refused."""

from pathlib import Path

import pytest
import yaml

from softcxl.fabric.topology import LogicalDevice, MultiLogicalDevice, TopologyError, VirtualSwitch, loads
from softcxl.fabric.tree import to_json, tree

MIB = 1 << 20
GIB = 1 << 30
GOOD = """\
devices:
  pool: {type: mld, volatile: 2GiB, persistent: 1GiB, logical_devices: [1GiB, {volatile: 256MiB, persistent: 256MiB},0]}
  spare: {volatile: 1GiB, serial: 7}
  other: {volatile: 1GiB, serial: 8}
switches:
  rack: {ports: [pool, spare, null],
    virtual: {
      left: {ports: [pool.0, null]},
      right: {ports: [spare, null]}}}
hosts:
  a: {bridges: {h: {ports: [left]}}, windows: [{size: 4GiB, targets: [h]}]}
  b: {bridges: {h: {ports: [right, other]}}}
"""
SLIPS = yaml.safe_load((Path(__file__).parent / "shared_slips.yaml").read_text())


def test_what_is_read():
    fabric = loads(GOOD)
    pool = fabric.devices["pool"]
    assert isinstance(pool, MultiLogicalDevice)
    assert (pool.volatile, pool.persistent, pool.granularity) == (2 * GIB, GIB, 256 * MIB)
    assert pool.logical_devices == [
        LogicalDevice(volatile=GIB),
        LogicalDevice(volatile=256 * MIB, persistent=256 * MIB),
        LogicalDevice(),
    ]
    assert (pool.heads, pool.on_unbind, pool.dynamic) == (1, "clear", [])
    rack = fabric.switches["rack"]
    assert rack.virtual == {
        "left": VirtualSwitch(ports=["pool.0", None]),
        "right": VirtualSwitch(ports=["spare", None]),
    }
    assert rack.serial is not None
    assert len({rack.serial, pool.serial, 7, 8}) == 4
    assert fabric.virtual == {"left": ("rack", 0), "right": ("rack", 1)}


def test_json_goes_round():
    fabric = loads(GOOD)
    assert loads(to_json(fabric)) == fabric


def test_the_tree_has_what_a_host_sees_and_what_the_switch_has():
    fabric = loads(GOOD)
    serial = fabric.pools["pool"].serial
    assert str(tree(fabric)) == (
        "fabric\n"
        "├── host a: 1GiB of RAM, 1 CPU\n"
        "│   ├── bridge h\n"
        "│   │   └── port 0: virtual switch left: VCS 0 of rack\n"
        "│   │       ├── port 0: pool.0: 1GiB volatile\n"
        "│   │       └── port 1: empty\n"
        "│   └── window 0: 4GiB over h, volatile and persistent\n"
        "├── host b: 1GiB of RAM, 1 CPU\n"
        "│   └── bridge h\n"
        "│       ├── port 0: virtual switch right: VCS 1 of rack\n"
        "│       │   ├── port 0: spare: 1GiB volatile, serial 0x7\n"
        "│       │   └── port 1: empty\n"
        "│       └── port 1: other: 1GiB volatile, serial 0x8\n"
        "└── switch rack: shared, 2 virtual switches\n"
        f"    ├── port 0: pool: 2GiB volatile, 1GiB persistent, 3 logical devices, serial {serial:#x}\n"
        "    │   ├── pool.0: 1GiB volatile\n"
        "    │   ├── pool.1: 256MiB volatile, 256MiB persistent\n"
        "    │   └── pool.2: nothing\n"
        "    ├── port 1: spare: 1GiB volatile, serial 0x7\n"
        "    ├── port 2: empty\n"
        "    ├── port 3: upstream of left\n"
        "    └── port 4: upstream of right"
    )


def test_a_device_with_several_heads_is_in_as_many_ports():
    fabric = loads(
        GOOD.replace("[pool, spare, null]", "[pool, spare, pool]").replace(
            "type: mld,", "type: mld, heads: 2,"
        )
    )
    assert fabric.switches["rack"].ports == ["pool", "spare", "pool"]


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_each_rule_names_the_line_the_path_and_what_is_allowed(slip):
    assert slip["was"] in GOOD
    text = GOOD.replace(slip["was"], slip["is"], 1)
    with pytest.raises(TopologyError) as caught:
        loads(text, "t.yaml")
    first, *others = caught.value.problems
    assert (first.file, first.line, first.path) == ("t.yaml", slip["line"], slip["path"])
    assert slip["says"] in first.message
    assert len(others) == slip.get("also", 0)


def test_a_switch_below_itself_by_way_of_its_virtual_switch():
    text = """
devices: {m: {volatile: 256MiB}}
switches:
  rack: {ports: [below, m], virtual: {left: {ports: [m]}}}
  below: {ports: [left]}
"""
    with pytest.raises(TopologyError) as caught:
        loads(text)
    assert [one.message for one in caught.value.problems] == ["is plugged into itself: rack > below > rack"]


def test_a_window_of_regions_that_cannot_be_has_no_fault_of_its_own():
    text = Path("examples/pooling.yaml").read_text().replace("length: 256MiB", "length: 3MiB")
    with pytest.raises(TopologyError) as caught:
        loads(text)
    assert [one.path for one in caught.value.problems] == ["devices.pool.dynamic[0]"]
