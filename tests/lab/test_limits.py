"""What QEMU cannot do is said of the topology alone. Its limits are those of its sources and of QEMU 11.1 as it ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcxl import Fabric
from softcxl.fabric.topology import Topology, load, loads
from softcxl.lab import limits
from softcxl.lab.boot import plan
from softcxl.lab.errors import PlanError
from softcxl.lab.plan import Endpoint, Switch


def topology(devices: int, bridges: str, more: str = "", windows: str = "") -> Topology:
    named = "".join(f"  m{number}: {{volatile: 2GiB}}\n" for number in range(devices))
    return loads(f"devices:\n{named}{more}\nhosts: {{h: {{bridges: {bridges}, {windows}}}}}")


def said(given: Topology) -> list[str]:
    return [str(one) for one in limits.limits(given)]


@pytest.mark.parametrize(
    "name",
    ["one-device", "two-devices", "behind-switch", "two-bridges", "firmware-region", "cxl-test", "pooling"],
)
def test_the_examples_are_within_them(name: str) -> None:
    assert said(load(f"examples/{name}.yaml")) == []


def test_a_switch_below_a_switch() -> None:
    given = topology(
        1,
        "{b: {ports: [outer]}}",
        "switches: {outer: {ports: [inner, null]}, inner: {ports: [m0]}}",
    )
    assert said(given) == [
        "not bootable in QEMU: h: the switch inner is below the switch outer; QEMU's switches take devices alone."
    ]
    with pytest.raises(PlanError, match=r"^h cannot be booted in QEMU: the switch inner is below"):
        limits.check(given, "h")


def test_firmware_regions_behind_a_switch() -> None:
    given = topology(
        2,
        "{b: {ports: [s]}}",
        "switches: {s: {ports: [m0, m1]}}",
        "windows: [{size: 4GiB, targets: [b]}], regions: [{window: 0, devices: [m0, m1]}]",
    )
    (only,) = said(given)
    assert only.startswith(
        "not bootable in QEMU: h: region 0: m0, m1 behind a switch; QEMU's switches cannot be"
    )


@pytest.mark.parametrize(
    ("ways", "boots"), [(2, True), (3, False), (4, True), (6, False), (8, True), (16, False)]
)
def test_ways_of_a_firmware_region_at_a_bridge(ways: int, boots: bool) -> None:
    devices = ", ".join(f"m{number}" for number in range(ways))
    given = topology(
        ways,
        f"{{b: {{ports: [{devices}]}}}}",
        windows=f"windows: [{{size: 48GiB, targets: [b]}}], regions: [{{window: 0, devices: [{devices}]}}]",
    )
    stops = [one.message for one in limits.limits(given) if not one.boots]
    assert stops == ([] if boots else [f"region 0: {ways} ways at b; QEMU's bridges have 1, 2, 4 or 8."])


def test_more_firmware_regions_than_a_bridge_has_decoders() -> None:
    region = "{window: 0, devices: [m0], size: 256MiB}"

    def of(count: int) -> Topology:
        regions = ", ".join([region] * count)
        return topology(
            1, "{b: {ports: [m0]}}", windows=f"windows: [{{size: 4GiB, targets: [b]}}], regions: [{regions}]"
        )

    assert said(of(4)) == []
    assert said(of(5)) == ["not bootable in QEMU: h: 5 regions over b; QEMU's bridges have 4 decoders."]


@pytest.mark.parametrize(
    ("ports", "note"), [(2, False), (3, True), (4, False), (5, False), (8, False), (9, True)]
)
def test_ports_that_no_region_can_span(ports: int, note: bool) -> None:
    given = topology(
        ports,
        "{b: {ports: [s, null]}}",
        f"switches: {{s: {{ports: [{', '.join(f'm{number}' for number in range(ports))}, null]}}}}",
    )
    wanted = f"in QEMU: h: no region over all {ports} ports of s: 1, 2, 4 or 8 ways there."
    assert said(given) == ([wanted] if note else [])
    limits.check(given, "h")


def test_windows_that_take_more_than_40_address_bits() -> None:
    # QEMU 11.1 under TCG, 1 GiB of memory, 2 slots: runs with maxmem=974G, "phys-bits too low (40)" with 975G
    def of(size: int) -> Topology:
        windows = f"windows: [{{size: 256MiB, targets: [b]}}, {{size: {size}GiB, targets: [b]}}]"
        return topology(1, "{b: {ports: [m0]}}", windows=windows)

    assert said(of(974 - 1 - 1)) == []
    (only,) = said(of(975 - 1 - 1))
    assert only.startswith("in QEMU: h: windows up to 0xf480000000 take KVM: ")
    assert only.endswith(" below 0xf440000000.")


def test_names_and_buses_of_the_plan() -> None:
    given = loads("devices: {b-port0: {volatile: 256MiB}}\nhosts: {h: {bridges: {b: {ports: [b-port0]}}}}")
    assert said(given) == ["not bootable in QEMU: h: the name 'b-port0' is used twice."]
    switches = "".join(f"  s{number}: {{ports: [{', '.join(['null'] * 16)}]}}\n" for number in range(16))
    ports = ", ".join(f"s{number}" for number in range(16))
    found = said(topology(1, f"{{b: {{ports: [{ports}]}}}}", f"switches:\n{switches}"))
    assert found[0].startswith("not bootable in QEMU: h: The bridges and switches need 289 PCI bus numbers")


@pytest.mark.parametrize(("bridges", "granularity"), [(1, 512), (2, 1024), (3, 512), (4, 2048), (6, 1024)])
def test_granularity_of_a_bridge_below_a_window(bridges: int, granularity: int) -> None:
    # as Linux reckons it: the window's, times its ways, of 3 and 6 ways their power of two (region.c)
    names = [f"m{number}" for number in range(2 * bridges)]
    ports = ", ".join(f"b{at}: {{ports: [{', '.join(names[at::bridges])}]}}" for at in range(bridges))
    targets = ", ".join(f"b{at}" for at in range(bridges))
    given = topology(
        2 * bridges,
        f"{{{ports}}}",
        windows=f"windows: [{{size: {bridges * 4}GiB, targets: [{targets}], granularity: 512}}],"
        f" regions: [{{window: 0, devices: [{', '.join(names)}], size: {512 * bridges}MiB}}]",
    )
    with Fabric(given) as fabric:
        decoders = plan(fabric, "h", dict.fromkeys(names, Path("/s"))).decoders
    assert [(one.granularity, one.ports) for one in decoders] == [(granularity, (0, 1))] * bridges


SHARED = """
devices:
  pool: {type: mld, volatile: 1GiB, logical_devices: [256MiB, 256MiB]}
  own: {volatile: 256MiB}
switches:
  rack: {ports: [pool], virtual: {left: {ports: [pool.1, null, null]}, right: {ports: [null]}}}
hosts:
  a: {bridges: {hb: {ports: [left, own]}}, windows: [{size: 1GiB, targets: [hb]}]}
  b: {bridges: {hb: {ports: [right]}}}
"""


def test_a_virtual_switch_is_a_switch_of_qemus() -> None:
    given = loads(SHARED)
    assert said(given) == []
    (bridge,) = limits.bridges(given, given.hosts["a"], Path("/s"))
    left, own = (port.below for port in bridge.ports)
    assert isinstance(left, Switch)
    assert left.name == "left"
    assert [(one.name, one.below and one.below.name) for one in left.ports] == [
        ("left-port0", "pool.1"),
        ("left-port1", None),
        ("left-port2", None),
    ]
    assert isinstance(own, Endpoint)


def test_a_virtual_switch_has_what_is_bound_now() -> None:
    given = loads(SHARED)
    sockets = {"pool.0": Path("/run/pool.0.sock"), "own": Path("/run/own.sock")}
    bound = {"left": [None, None, "pool.0"]}
    (bridge,) = limits.bridges(given, given.hosts["a"], sockets, bound)
    left = bridge.ports[0].below
    assert isinstance(left, Switch)
    assert [one.below for one in left.ports] == [None, None, Endpoint("pool.0", Path("/run/pool.0.sock"))]


def test_a_virtual_switch_below_a_switch() -> None:
    text = SHARED.replace("  rack:", "  above: {ports: [right]}\n  rack:")
    given = loads(text.replace("b: {bridges: {hb: {ports: [right]", "b: {bridges: {hb: {ports: [above]"))
    assert said(given) == [
        "not bootable in QEMU: b: the switch right is below the switch above; QEMU's switches take devices alone."
    ]
