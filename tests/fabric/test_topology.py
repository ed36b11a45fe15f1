"""Every rule of a topology file, each with the line, the path and the words of its message."""

import textwrap
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from softcxl.fabric.topology import (
    Bridge,
    FirmwareRegion,
    Host,
    Topology,
    TopologyError,
    Type3,
    Window,
    load,
    loads,
    validate,
)

MIB = 1 << 20

GOOD = """\
devices:
  mem0: {type: type3, volatile: 256MiB, serial: 0xC0FFEE01}
  mem1: {type: type3, volatile: 256MiB, persistent: 256MiB, label_storage: 128KiB, serial: 0xC0FFEE02}
  mem2: {volatile: 512MiB, serial: 3}
  mem3: {volatile: 512MiB, serial: 4}
switches:
  sw0: {ports: [mem2, null]}
hosts:
  alpha:
    memory: 1GiB
    cpus: 2
    bridges: {hb0: {ports: [mem0, mem1]}, hb1: {ports: [sw0, mem3, null]}}
    windows:
      - {size: 1GiB, targets: [hb0]}
      - {size: 1GiB, targets: [hb0, hb1], granularity: 4KiB, arithmetic: xor, restrictions: [volatile]}
    regions:
      - {window: 0, devices: [mem0]}
      - {window: 1, devices: [mem1, mem2], granularity: 4096}
"""


def problems(text):
    with pytest.raises(TopologyError) as caught:
        loads(textwrap.dedent(text), "t.yaml")
    return caught.value.problems


def edited(old, new):
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def test_a_good_file_is_read():
    fabric = loads(GOOD)
    assert list(fabric.devices) == ["mem0", "mem1", "mem2", "mem3"]
    assert fabric.devices["mem1"] == Type3(
        volatile=256 * MIB, persistent=256 * MIB, label_storage=128 * 1024, serial=0xC0FFEE02
    )
    assert fabric.switches["sw0"].ports == ["mem2", None]
    alpha = fabric.hosts["alpha"]
    assert (alpha.memory, alpha.cpus) == (1024 * MIB, 2)
    assert alpha.bridges["hb1"] == Bridge(ports=["sw0", "mem3", None])
    assert alpha.windows[0] == Window(size=1024 * MIB, targets=["hb0"])
    assert alpha.windows[1] == Window(
        size=1024 * MIB,
        targets=["hb0", "hb1"],
        granularity=4096,
        arithmetic="xor",
        restrictions=["volatile"],
    )
    assert fabric.state is None


def test_defaults_that_depend_on_other_keys_are_filled_in():
    fabric = loads(GOOD)
    assert [fabric.memory[name].label_storage for name in ("mem0", "mem1")] == [0, 128 * 1024]
    first, second = fabric.hosts["alpha"].regions
    assert first == FirmwareRegion(window=0, devices=["mem0"], granularity=256, size=256 * MIB)
    assert second == FirmwareRegion(
        window=1, devices=["mem1", "mem2"], granularity=4096, size=512 * MIB, type="ram"
    )


def test_persistent_capacity_has_labels_unless_told_otherwise():
    fabric = loads("devices: {a: {persistent: 256MiB}, b: {persistent: 256MiB, label_storage: 0}}")
    assert [device.label_storage for device in fabric.memory.values()] == [128 * 1024, 0]


def test_a_serial_comes_from_the_name_alone():
    one = loads("devices: {mem0: {volatile: 256MiB}}")
    two = loads("devices: {aaa: {volatile: 256MiB}, mem0: {volatile: 512MiB}}")
    assert one.memory["mem0"].serial == two.memory["mem0"].serial
    assert one.memory["mem0"].serial != two.memory["aaa"].serial
    assert (one.memory["mem0"].serial or 0) >> 32 == 0x5C


def test_a_region_takes_what_its_devices_have_left_alike():
    text = """
    devices: {a: {volatile: 1GiB}, b: {volatile: 512MiB}}
    hosts:
      h:
        bridges: {hb0: {ports: [a, b]}}
        windows: [{size: 4GiB, targets: [hb0]}]
        regions:
          - {window: 0, devices: &ab [a, b], size: 512MiB}
          - {window: 0, devices: *ab}
          - {window: 0, devices: [a]}
    """
    assert [(region.size or 0) // MIB for region in loads(textwrap.dedent(text)).hosts["h"].regions] == [
        512,
        512,
        512,
    ]


def test_paths_are_relative_to_the_file(tmp_path):
    file = tmp_path / "fabric.yaml"
    file.write_text(
        "state: kept\ndevices: {a: {persistent: 256MiB, file: a.img}, b: {persistent: 256MiB, file: /b}}"
    )
    fabric = load(file)
    assert fabric.state == str(tmp_path / "kept")
    assert [device.file for device in fabric.memory.values()] == [str(tmp_path / "a.img"), "/b"]


def test_names_that_yaml_takes_for_something_else_are_names():
    fabric = loads("devices: {on: {volatile: 256MiB}, no: {volatile: 256MiB}, 'null': {volatile: 256MiB}}")
    assert list(fabric.devices) == ["on", "no", "null"]


def test_anchors_and_merges():
    fabric = loads(
        "devices:\n"
        "  a: &a {volatile: 256MiB, decoders: 8, serial: 1}\n"
        "  b: {<<: *a, serial: 2}\n"
        "  c: {serial: 3, volatile: 512MiB, <<: [{decoders: 2}, *a]}\n"
    )
    assert [(one.volatile // MIB, one.decoders, one.serial) for one in fabric.memory.values()] == [
        (256, 8, 1),
        (256, 8, 2),
        (512, 2, 3),
    ]


SLIPS = yaml.safe_load((Path(__file__).parent / "slips.yaml").read_text())


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_each_rule_names_the_line_the_path_and_what_is_allowed(slip):
    text = edited(slip["was"], slip["is"])
    first, *others = problems(text)
    assert (first.file, first.line, first.path) == ("t.yaml", slip["line"], slip["path"])
    assert slip["says"] in first.message
    assert 1 <= first.column <= len(text.splitlines()[first.line - 1]) + 1
    assert len(others) == slip.get("also", 0)


def test_columns_point_at_the_value():
    (problem,) = problems("devices:\n  mem0: {volatile: 100MiB}\n")
    assert (problem.line, problem.column) == (2, 20)
    assert str(problem) == "t.yaml:2:20: devices.mem0.volatile: 100MiB is not a multiple of 256MiB"


def test_all_problems_are_reported_in_the_files_order():
    found = problems(
        """\
        devices:
          mem0: {volatile: 1, serial: x}
          mem1: {}
        hosts:
          alpha: {bridges: {hb0: {ports: [mem2]}}, windows: [{size: 1GiB, targets: [hb1], qtg: -1}]}
        """
    )
    assert [(one.line, one.path) for one in found] == [
        (2, "devices.mem0.volatile"),
        (2, "devices.mem0.serial"),
        (3, "devices.mem1"),
        (5, "hosts.alpha.bridges.hb0.ports[0]"),
        (5, "hosts.alpha.windows[0].targets[0]"),
        (5, "hosts.alpha.windows[0].qtg"),
    ]


NOT_YAML = {
    "tab": ("devices:\n\tmem0: {}\n", 2, "a tab stands where only spaces may indent"),
    "open bracket": ("devices: {mem0: {volatile: 256MiB}\n", 2, "is not YAML"),
    "empty": ("", 1, "is empty; it needs at least `devices:`"),
    "only a comment": ("# nothing\n", 1, "is empty"),
    "two documents": ("devices: {}\n---\ndevices: {}\n", 2, "a second document starts here"),
    "control character": ("devices: {a\x00: {}}", 1, "character U+0000 is not allowed in YAML"),
    "unknown alias": ("devices:\n  a: *b\n", 2, "found undefined alias 'b'"),
    "bad escape": ('devices: {"\\UFFFFFFFF": {}}', 0, "is not YAML"),
    "nested": ("[" * 5000, 0, "is nested too deeply"),
    "a list": (
        "[1, 2]",
        1,
        "must be a mapping with the keys devices, switches, hosts, pool, state, not a list",
    ),
    "a word": (
        "hello",
        1,
        "must be a mapping with the keys devices, switches, hosts, pool, state, not 'hello'",
    ),
    "a key that is a list": ("? [a]\n: 1\n", 1, "a key must be a word, not a list"),
    "a merge into itself": ("devices: {a: &a {<<: *a, volatile: 256MiB}}", 1, "`<<` goes round in a circle"),
}


@pytest.mark.parametrize(("text", "line", "words"), NOT_YAML.values(), ids=NOT_YAML)
def test_what_is_not_a_topology_at_all(text, line, words):
    found = problems(text)
    assert found[0].line == line
    assert words in found[0].message


def test_a_file_in_another_encoding():
    with pytest.raises(TopologyError, match=r"t.yaml:2:1: byte 0xe9 is not UTF-8 text"):
        loads(b"devices:\n  m\xe9m: {}\n", "t.yaml")


def test_a_huge_file():
    with pytest.raises(TopologyError, match="has 2000000 bytes; a topology has at most 262144"):
        loads("#" * 2_000_000)


def test_aliases_cannot_stand_for_a_million_values():
    ports = ", ".join(["*p"] * 500)
    text = f"devices: {{}}\nswitches: {{s: {{ports: &p [{', '.join(['null'] * 500)}]}}}}\nhosts:\n"
    text += "".join(f"  h{i}: {{bridges: {{b: {{ports: *p}}}}}}\n" for i in range(300)) + f"# {ports}\n"
    with pytest.raises(TopologyError, match="stands for more than 100000 values"):
        loads(text)


@pytest.mark.parametrize(
    ("name", "words"), [("absent.yaml", "No such file"), (".", "Is a directory"), ("a\0b", "null byte")]
)
def test_a_file_that_cannot_be_read(tmp_path, name, words):
    with pytest.raises(TopologyError) as caught:
        load(f"{tmp_path}/{name}")
    assert f"cannot be read: {words}" in str(caught.value) or "embedded null" in str(caught.value)


def test_switches_in_a_longer_circle_are_reported_once():
    found = problems(
        """\
        devices: {}
        switches:
          a: {ports: [b]}
          b: {ports: [null, c]}
          c: {ports: [a]}
        """
    )
    assert [(one.path, one.message) for one in found] == [
        ("switches.a", "is plugged into itself: a > b > c > a")
    ]


@pytest.mark.parametrize("ways", [5, 7, 9, 10, 11, 13, 14, 15])
def test_ways_that_do_not_exist(ways):
    devices = ", ".join(f"m{i}: {{volatile: 256MiB}}" for i in range(ways))
    names = ", ".join(f"m{i}" for i in range(ways))
    (problem,) = problems(
        f"devices: {{{devices}}}\n"
        f"hosts:\n  h:\n    bridges: {{b: {{ports: [{names}]}}}}\n"
        f"    windows: [{{size: 8GiB, targets: [b]}}]\n    regions: [{{window: 0, devices: [{names}]}}]\n"
    )
    assert problem.message == f"{ways} devices cannot be interleaved; allowed are 1, 2, 3, 4, 6, 8, 12, 16"


@pytest.mark.parametrize("ways", [1, 2, 3, 4, 6, 8, 12, 16])
def test_ways_that_exist(ways):
    devices = {f"m{i}": Type3(volatile=256 * MIB) for i in range(ways)}
    host = Host(
        bridges={"b": Bridge(ports=list(devices))},
        windows=[Window(size=ways * 256 * MIB, targets=["b"])],
        regions=[FirmwareRegion(window=0, devices=list(devices))],
    )
    fabric = validate(Topology(devices=devices, hosts={"h": host}))
    assert fabric.hosts["h"].regions[0].size == ways * 256 * MIB


TREE = """\
devices: {a: &d {volatile: 1GiB}, b: *d, c: *d, d: *d, e: *d}
switches: {s0: {ports: [a, b]}, s1: {ports: [c, d]}}
hosts:
  h:
    bridges: {hb0: {ports: [s0, s1]}, hb1: {ports: [e]}}
    windows: [{size: 8GiB, targets: [hb0]}]
    regions: [{window: 0, devices: [ORDER]}]
"""


@pytest.mark.parametrize("order", ["a, c, b, d", "c, a, d, b", "a, b", "a, c", "b, c", "d"])
def test_positions_take_turns(order):
    (region,) = loads(TREE.replace("ORDER", order)).hosts["h"].regions
    assert region.devices == order.split(", ")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("a, b, c, d", "below hb0, ports must take turns: b is at port 0 where port 1 is due"),
        ("a, c, d, b", "below hb0, ports must take turns: d is at port 1 where port 0 is due"),
        ("a, c, b", "below hb0, 3 devices cannot share 2 ports evenly"),
        ("e", "e is behind hb1; window 0 leads to hb0"),
    ],
)
def test_positions_out_of_turn(order, words):
    (problem,) = problems(TREE.replace("ORDER", order))
    assert problem.message == words
    assert problem.line == 7


def test_regions_share_a_window_and_no_more():
    text = """\
    devices: {a: {volatile: 1GiB}}
    hosts:
      h:
        bridges: {hb0: {ports: [a]}}
        windows: [{size: 512MiB, targets: [hb0]}]
        regions: [{window: 0, devices: [a], size: 256MiB}, {window: 0, devices: [a], size: 512MiB}]
    """
    (problem,) = problems(text)
    assert problem.path == "hosts.h.regions[1].size"
    assert problem.message == "512MiB does not fit in window 0, which has 256MiB left"


def test_a_device_that_is_not_plugged_in_cannot_be_in_a_region():
    (problem,) = problems(edited("[mem0, mem1]", "[null, mem1]"))
    assert problem.path == "hosts.alpha.regions[0].devices[0]"
    assert problem.message == "mem0 is not plugged into this host"


def test_two_devices_cannot_share_a_file():
    (problem,) = problems("devices: {a: {persistent: 256MiB, file: x}, b: {persistent: 256MiB, file: x}}")
    assert (problem.path, problem.message) == ("devices.b.file", "'x' is also the file of a")


def test_python_made_topologies_are_checked_alike():
    with pytest.raises(TopologyError) as caught:
        validate(Topology(devices={"mem0": Type3(volatile=5), "x y": Type3(volatile=256 * MIB)}), "mine")
    assert [str(one) for one in caught.value.problems] == [
        "mine: devices.mem0.volatile: 5B is not a multiple of 256MiB",
        "mine: devices.x y: 'x y' is not a name of at most 32 letters, digits, _ and -, a letter first",
    ]


WRONG_TYPES: list[dict[str, Any]] = [
    {"devices": {"a": 5}},
    {"devices": []},
    {"devices": {"a": Type3(volatile=cast("Any", "256MiB"))}},
    {"devices": {"a": Type3(volatile=True)}},
    {"devices": {3: Type3(volatile=256 * MIB)}},
    {"devices": {}, "hosts": {"h": Host(bridges={"b": Bridge(ports=cast("Any", "mem0"))})}},
    {"devices": {"a": Type3(volatile=256 * MIB, decoders=cast("Any", "4"))}},
]


@pytest.mark.parametrize("wrong", WRONG_TYPES)
def test_wrong_python_types_are_a_topology_error_too(wrong):
    with pytest.raises(TopologyError):
        validate(Topology(**wrong))
