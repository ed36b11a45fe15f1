"""Dynamic capacity from a topology file: keys, their faults, and what `state` keeps."""

import struct
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import BuildError, TopologyError
from softcxl.fabric.topology import load, loads
from softcxl.fabric.tree import tree
from softcxl.testing.driver import Driver

MIB = 1 << 20
TAG = UUID(int=5)


def device_with(dynamic, more=""):
    return f"devices:\n  mem0:\n    serial: 1\n{more}    dynamic: {dynamic}\n"


def test_every_key_reaches_the_device():
    text = device_with(
        "[{length: 64MiB, block_size: 64KiB, decode_length: 512MiB, dsmad_handle: 9,"
        " flags: [non-volatile, sharable, coherent, read-only, sanitize-on-release]}, {length: 2MiB}]"
    )
    with Fabric.loads(text, clock=ManualClock()) as fabric:
        first, second = fabric.devices["mem0"].dynamic.regions
    assert (first.length, first.block_size, first.decode_length) == (64 * MIB, 64 << 10, 512 * MIB)
    assert (first.base, first.dsmad_handle) == (0, 9)
    assert first.non_volatile
    assert first.sharable
    assert first.hardware_coherent
    assert first.read_only
    assert first.sanitize_on_release
    assert (second.length, second.block_size, second.base, second.dsmad_handle) == (
        2 * MIB,
        2 * MIB,
        512 * MIB,
        3,
    )
    assert not any((second.non_volatile, second.sharable, second.read_only, second.sanitize_on_release))


@pytest.mark.parametrize(
    ("dynamic", "path", "says"),
    [
        ("[{}]", "devices.mem0.dynamic[0].length", "is missing"),
        ("[{length: 0}]", "devices.mem0.dynamic[0].length", "0B is not a multiple of 64B"),
        ("[{length: 3MiB}]", "devices.mem0.dynamic[0]", "multiples of 0x200000 are allowed"),
        ("[{length: 3MiB, block_size: 3MiB}]", "devices.mem0.dynamic[0]", "powers of two"),
        ("[{length: 2MiB, block_size: 32}]", "devices.mem0.dynamic[0].block_size", "32B is not"),
        ("[{length: 2MiB, decode_length: 2MiB}]", "devices.mem0.dynamic[0].decode_length", "2MiB is not"),
        ("[{length: 512MiB, decode_length: 256MiB}]", "devices.mem0.dynamic[0]", "from the length on"),
        ("[{length: 2MiB, flags: [shared]}]", "devices.mem0.dynamic[0].flags[0]", "did you mean 'sharable'?"),
        (
            "[{length: 2MiB, flags: [sharable, sharable]}]",
            "devices.mem0.dynamic[0].flags[1]",
            "sharable is given twice",
        ),
        ("[{length: 2MiB, flags: [coherent]}]", "devices.mem0.dynamic[0]", "for sharable regions"),
        ("[{length: 2MiB, dsmad_handle: 1}]", "devices.mem0.dynamic[0].dsmad_handle", "1 is not"),
        (
            "[{length: 2MiB, dsmad_handle: 3}, {length: 2MiB}]",
            "devices.mem0.dynamic[1]",
            "another one has DSMADHandle 3",
        ),
        (f"[{', '.join(['{length: 2MiB}'] * 9)}]", "devices.mem0.dynamic", "has 9 entries"),
        ("{length: 2MiB}", "devices.mem0.dynamic", "must be a list"),
    ],
)
def test_slips(dynamic, path, says):
    with pytest.raises(TopologyError) as raised:
        loads(device_with(dynamic))
    found = [(one.path, one.message) for one in raised.value.problems]
    assert [one for one, message in found if says in message] == [path]
    assert len(found) == 1


def test_a_device_needs_some_capacity():
    assert loads(device_with("[{length: 2MiB}]")).memory["mem0"].dynamic
    with pytest.raises(TopologyError, match="give `volatile`, `persistent` or `dynamic`"):
        loads(device_with("[]"))


def test_the_tree_shows_it():
    text = "\n".join(tree(load("examples/dynamic-capacity.yaml")).lines())
    assert "256MiB volatile, 768MiB dynamic" in text


def accept(device, *ranges):
    payload = struct.pack("<I4x", len(ranges)) + b"".join(struct.pack("<QQ8x", *one) for one in ranges)
    assert Driver(device).send(0x4802, payload)[0] == 0


def test_state_keeps_extents_and_their_bytes(tmp_path):
    """Bytes that rest in a window's file, too. Volatile regions begin anew."""
    text = (
        f"state: {tmp_path}\n"
        + device_with("[{length: 256MiB}, {length: 256MiB, flags: [non-volatile]}]")
        + "hosts: {alpha: {bridges: {hb0: {ports: [mem0]}}, windows: [{size: 512MiB, targets: [hb0]}]}}\n"
    )
    ranges = [(0, 2 * MIB), (256 * MIB, 4 * MIB)]
    with Fabric.loads(text, clock=ManualClock()) as fabric:
        device = fabric.devices["mem0"]
        base = fabric.hosts["alpha"].memory.windows[0].base
        for region, (dpa, length) in enumerate(ranges):
            device.dynamic.add(region=region, length=length, tag=TAG)
            accept(device, (dpa, length))
            device.space.write(dpa, b"data")
        device.decoders.program(0, hpa=base, size=512 * MIB, ways=1, granularity=256)
        device.space.write(256 * MIB + 4096, b"more")
    for _ in range(2):
        with Fabric.loads(text, clock=ManualClock()) as fabric:
            device = fabric.devices["mem0"]
            assert [(one.range, one.tag) for one in device.dynamic.extents] == [((256 * MIB, 260 * MIB), TAG)]
            assert device.space.read(0, 4) == bytes(4)
            assert device.space.read(256 * MIB, 4) == b"data"
            assert device.space.read(256 * MIB + 4096, 4) == b"more"


def test_another_topology_over_the_same_state(tmp_path):
    text = f"state: {tmp_path}\n" + device_with("[{length: 256MiB, flags: [non-volatile]}]")
    with Fabric.loads(text, clock=ManualClock()) as fabric:
        device = fabric.devices["mem0"]
        device.dynamic.add(length=2 * MIB)
        accept(device, (0, 2 * MIB))
    for other, says in (
        ("[{length: 512MiB, flags: [non-volatile]}]", "mem0.mem"),
        ("[{length: 256MiB, block_size: 4MiB, flags: [non-volatile]}]", "dynamic cannot have been"),
    ):
        with pytest.raises(BuildError, match=says):
            Fabric.loads(f"state: {tmp_path}\n" + device_with(other), clock=ManualClock())
    with Fabric.loads(text, clock=ManualClock()) as fabric:
        assert len(fabric.devices["mem0"].dynamic.extents) == 1
