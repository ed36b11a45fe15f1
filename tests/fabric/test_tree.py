import json
from pathlib import Path

import pytest

from softcxl.fabric.topology import load, loads
from softcxl.fabric.tree import to_json, tree

EXAMPLES = sorted(Path("examples").glob("*.yaml"))


def drawn(name):
    return str(tree(load(Path("examples") / name), name))


def test_a_switch_an_empty_port_and_a_window():
    assert drawn("behind-switch.yaml") == (
        "behind-switch.yaml\n"
        "└── host alpha: 1GiB of RAM, 1 CPU\n"
        "    ├── bridge hb0\n"
        "    │   ├── port 0: switch sw0\n"
        "    │   │   ├── port 0: mem0: 256MiB volatile, serial 0xc0ffee01\n"
        "    │   │   ├── port 1: mem1: 256MiB volatile, serial 0xc0ffee02\n"
        "    │   │   └── port 2: empty\n"
        "    │   └── port 1: mem2: 256MiB volatile, serial 0xc0ffee03\n"
        "    └── window 0: 1GiB over hb0, volatile and persistent"
    )


def test_interleaved_windows_and_what_is_not_plugged_in():
    text = drawn("two-bridges.yaml")
    assert "window 0: 1GiB over hb0, hb1 (2-way, 4KiB each), volatile" in text
    assert "window 1: 512MiB over hb0, volatile and persistent, QTG 1" in text
    assert text.endswith("└── not plugged in\n    └── spare: 256MiB volatile, serial 0xc0ffee03")


def test_regions_and_persistent_capacity():
    region = "region 0: ram, 512MiB in window 0 over mem0, mem1 (2-way, 256B each)"
    assert region in drawn("firmware-region.yaml")
    device = "port 1: mem1: 256MiB volatile, 256MiB persistent, 128KiB of labels, serial 0xc0ffee02"
    assert device in drawn("persistent.yaml")


def test_a_switch_that_is_not_plugged_in_keeps_its_devices():
    devices = "devices: {m: {volatile: 256MiB, class: 'a.b:C'}}"
    switches = "switches: {s: {ports: [m, t]}, t: {ports: [null]}}"
    text = str(tree(loads(f"{devices}\n{switches}")))
    serial = loads("devices: {m: {volatile: 256MiB}}").memory["m"].serial
    assert text == (
        "fabric\n"
        "└── not plugged in\n"
        "    └── switch s\n"
        f"        ├── port 0: m: 256MiB volatile, serial {serial:#x}, class a.b:C\n"
        "        └── port 1: switch t\n"
        "            └── port 0: empty"
    )  # fmt: skip


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_holds_and_goes_through_json_unchanged(file):
    fabric = load(file)
    plain = json.loads(to_json(fabric))
    # JSON is YAML: what we print is what we read.
    assert loads(json.dumps(plain)) == fabric
    for name in fabric.devices:
        assert name in str(tree(fabric))
    for name, device in fabric.memory.items():
        assert plain["devices"][name]["volatile"] == device.volatile


def test_the_examples_are_there():
    expected = {"one-device", "two-devices", "two-bridges", "behind-switch", "persistent", "firmware-region"}
    assert {file.stem for file in EXAMPLES} >= expected
