"""Logical devices with a head of their own, in hosts' root ports: SLDs of one device."""

import pytest

from softcxl import Fabric
from softcxl.device.mld.errors import LdInUse
from softcxl.fabric.errors import BuildError, TopologyError
from softcxl.fabric.topology import loads
from softcxl.fabric.tree import tree
from softcxl.wire import Reset

MIB = 1 << 20
TEXT = """
devices:
  mem0: {volatile: 256MiB}
  pool: {type: mld, volatile: 1GiB, heads: 2, logical_devices: [256MiB, 512MiB]}
hosts:
  a: {bridges: {hb0: {ports: [pool.0, mem0]}}, windows: [{size: 512MiB, targets: [hb0]}]}
  b: {bridges: {hb0: {ports: [pool.1]}}, windows: [{size: 512MiB, targets: [hb0]}]}
"""


def test_each_host_has_its_own():
    with Fabric.loads(TEXT) as fabric:
        pool = fabric.mlds["pool"]
        for ld, (name, size) in enumerate((("a", 256 * MIB), ("b", 512 * MIB))):
            system, device = fabric.hosts[name].boot(), pool.logical[ld]
            found = next(one for one in system.memdevs.values() if one.serial == device.serial)
            assert (found.partitions["ram"], device.holder) == ((0, size), name)
            region = system.create_region([found], size=256 * MIB)
            system.machine.store(region.hpa, name.encode() * 8)
        fabric.hosts["a"].machine.reset(Reset.COLD)  # the device has power from host b
        assert [pool.logical[ld].space.read(0, 8) for ld in (0, 1)] == [b"a" * 8, b"b" * 8]
        with pytest.raises(LdInUse, match=r"pool\.0 is bound to a"):
            pool.allocate({0: 0})


def test_tree():
    assert (
        list(tree(loads(TEXT)).lines())
        == """\
fabric
├── host a: 1GiB of RAM, 1 CPU
│   ├── bridge hb0
│   │   ├── port 0: pool.0: 256MiB volatile
│   │   └── port 1: mem0: 256MiB volatile, serial 0x5c9288fa4f
│   └── window 0: 512MiB over hb0, volatile and persistent
├── host b: 1GiB of RAM, 1 CPU
│   ├── bridge hb0
│   │   └── port 0: pool.1: 512MiB volatile
│   └── window 0: 512MiB over hb0, volatile and persistent
└── pool: 1GiB volatile, 2 logical devices, 2 heads, serial 0x5cf006e36b
    ├── pool.0: 256MiB volatile
    └── pool.1: 512MiB volatile""".splitlines()
    )


@pytest.mark.parametrize(
    ("was", "is_", "says"),
    [
        ("[pool.1]", "[pool.0]", "pool.0 is plugged in already, at hosts.a.bridges.hb0.ports[0]"),
        ("[pool.1]", "[pool.2]", "pool has 2 logical devices, pool.0 to pool.1"),
        ("[pool.1]", "[mem0.0]", "mem0 is no device with logical devices"),
        ("[pool.1]", "[poll.1]", "poll is no device with logical devices; did you mean 'pool'?"),
        (
            "heads: 2, ",
            "",
            "pool.0 has no head of its own: pool has 1 head (`heads`) for 2 logical devices",
        ),
        ("512MiB]}", "0]}", "pool.1 has no capacity at first; give it some (`logical_devices`)"),
        (
            "512MiB]}",
            f"512MiB{', 0' * 31}]}}",
            "33 logical devices; at most 16 for each of the 2 heads are allowed",
        ),
        ("[pool.1]", "[pool]", "pool has logical devices; plug it into a switch"),
        (
            "hosts:",
            "switches: {s: {ports: [pool], virtual: {v: {ports: [null]}}}}\nhosts:",
            "pool.0 is plugged in already, at switches.s.ports[0]",
        ),
    ],
)
def test_what_cannot_be(was, is_, says):
    assert was in TEXT
    with pytest.raises(TopologyError) as refused:
        loads(TEXT.replace(was, is_))
    assert says in str(refused.value)


def test_memory_that_a_fabric_manager_gave_to_others(tmp_path):
    """By a topology in which it was free to."""
    text = TEXT + f"state: {tmp_path}\n"
    with Fabric.loads(text.replace("[pool.0, mem0]", "[null, mem0]")) as fabric:
        fabric.mlds["pool"].allocate({0: 0})
    with pytest.raises(BuildError, match=r"hosts\.a: pool\.0 has no memory any more"), Fabric.loads(text):
        pass
