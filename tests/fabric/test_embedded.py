"""From a topology file to reading and writing region memory, on the real machine; and the machine against explain."""

import random

import pytest

import softcxl
from softcxl.fabric.errors import BuildError
from softcxl.fabric.topology import loads
from softcxl.switch.errors import AccessFault, PoisonError

EIGHT = """
devices:
  {m0: {volatile: 256MiB}, m1: {volatile: 256MiB}, m2: {volatile: 256MiB}, m3: {volatile: 256MiB},
   m4: {volatile: 256MiB}, m5: {volatile: 256MiB}, m6: {volatile: 256MiB}, m7: {volatile: 256MiB}}
switches: {s0: {ports: [m0, m1]}, s1: {ports: [m2, m3]}, s2: {ports: [m4, m5]}, s3: {ports: [m6, m7]}}
hosts:
  alpha:
    bridges: {hb0: {ports: [s0, s1]}, hb1: {ports: [s2, s3]}}
    windows: [{size: 4GiB, targets: [hb0, hb1], granularity: 512, arithmetic: ARITHMETIC}]
"""

TWELVE = """
devices: {DEVICES}
hosts:
  alpha:
    bridges: {hb0: {ports: [m0, m1, m2, m3]}, hb1: {ports: [m4, m5, m6, m7]}, hb2: {ports: [m8, m9, m10, m11]}}
    windows: [{size: 3GiB, targets: [hb0, hb1, hb2]}]
""".replace("DEVICES", ", ".join(f"m{number}: {{volatile: 256MiB}}" for number in range(12)))

ONE = """
devices: {mem0: {volatile: 256MiB, persistent: 512MiB}}
hosts: {alpha: {bridges: {hb0: {ports: [mem0]}}, windows: [{size: 1GiB, targets: [hb0]}]}}
"""


def test_three_lines():
    with softcxl.Fabric.load("examples/two-devices.yaml") as fabric:
        region = next(iter(fabric.hosts.values())).boot().create_region(type="ram")
        region.write(0, b"hello")
        assert region.read(0, 5) == b"hello"


@pytest.mark.parametrize(
    "text",
    [EIGHT.replace("ARITHMETIC", "modulo"), EIGHT.replace("ARITHMETIC", "xor"), TWELVE],
    ids=["eight-way", "eight-way xor", "twelve-way"],
)
def test_what_is_explained_is_where_the_machine_goes(text):
    rng = random.Random(7)
    with softcxl.Fabric.loads(text) as fabric:
        host = fabric.hosts["alpha"]
        system = host.boot()
        region = system.create_region()
        assert region.ways == len(fabric.devices)
        data = rng.randbytes(1 << 18)
        region.write(4000, data)
        assert region.read(4000, len(data)) == data
        for _ in range(150):
            offset = 4000 + rng.randrange(len(data))
            hpa = region.hpa + offset
            assert region.load(offset, 1) == data[offset - 4000 : offset - 3999]
            found, way = system.explain(hpa), host.machine.trace(hpa)
            assert (found.memdev.serial, found.dpa) == (way.device.serial, way.dpa)
            assert system.translate(found.memdev, found.dpa) == hpa
            assert bytes(way.device.space.read(way.dpa, 1)) == data[offset - 4000 : offset - 3999]


def test_regions_of_firmware_are_found():
    text = ONE.replace(
        "hb0]}]}}", "hb0]}], regions: [{window: 0, devices: [mem0], type: pmem, size: 256MiB}]}}"
    )
    with softcxl.Fabric.loads(text) as fabric:
        system = fabric.hosts["alpha"].boot()
        assert system.problems == []
        (region,) = system.regions.values()
        assert (region.type, region.size, region.automatic) == ("pmem", 256 << 20, True)
        region.write(100, b"x" * 5000)
        assert region.load(100, 5000) == b"x" * 5000


def test_persistent_regions_come_back_in_the_next_process(tmp_path):
    topology = loads(ONE + f"state: {tmp_path}\n")
    with softcxl.Fabric(topology) as fabric:
        region = fabric.hosts["alpha"].boot().create_region(type="pmem", size=256 << 20)
        region.write(12345, b"still here")
        uuid, hpa = region.uuid, region.hpa
    with softcxl.Fabric(topology) as fabric:
        (region,) = fabric.hosts["alpha"].boot().regions.values()
        assert (region.uuid, region.hpa) == (uuid, hpa)
        assert region.read(12345, 10) == b"still here"


def test_a_second_system_finds_what_the_first_made():
    with softcxl.Fabric.loads(ONE) as fabric:
        host = fabric.hosts["alpha"]
        given = host.boot().create_region(type="ram")
        assert host.boot().listing() == host.boot().listing()
        (region,) = host.boot().regions.values()
        assert (region.hpa, region.size, region.automatic) == (given.hpa, given.size, True)


def test_poison_and_media_that_are_disabled():
    with softcxl.Fabric.loads(ONE) as fabric:
        region = fabric.hosts["alpha"].boot().create_region(type="ram")
        fabric.devices["mem0"].inject_poison(0x1000)
        assert region.read(0, 0x1000) == bytes(0x1000)
        with pytest.raises(PoisonError):
            region.read(0, 0x2000)
        region.write(0x1000, bytes(64))
        assert region.read(0, 0x2000) == bytes(0x2000)
        fabric.devices["mem0"].media_disabled = True
        with pytest.raises(AccessFault, match="media of mem0 are disabled"):
            region.read(0, 64)


def test_hot_plug_on_the_machine():
    text = ONE.replace("[mem0]}}", "[mem0, null]}}").replace("mem0: {v", "mem1: {volatile: 256MiB}, mem0: {v")
    with softcxl.Fabric.loads(text) as fabric:
        host = fabric.hosts["alpha"]
        system = host.boot()
        port = host.machine.bridges[0].ports[1]
        port.insert(fabric.devices["mem1"])
        (added,) = system.hot_add(system.buses[0].below[1].name)
        assert added.serial == fabric.devices["mem1"].serial
        region = system.create_region([added], type="ram")
        region.write(0, b"added")
        port.remove()
        assert system.hot_remove(system.buses[0].below[1].name) == [region]
        with pytest.raises(ValueError, match="is gone"):
            region.read(0, 5)


def test_a_door_and_a_machine_are_not_for_one_device(tmp_path):
    with softcxl.Fabric.loads(ONE) as fabric:
        with fabric.doors("alpha", tmp_path), pytest.raises(BuildError, match="is in use, its door is"):
            fabric.hosts["alpha"].boot()
        fabric.hosts["alpha"].boot()
        with (
            pytest.raises(BuildError, match="mem0: is in use by a host in this process"),
            fabric.doors("alpha", tmp_path),
        ):
            pass
