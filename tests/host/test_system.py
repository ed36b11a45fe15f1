"""What drivers find: names and numbers as Linux gives them, and what becomes of devices that do not hold."""

import pytest

from softcxl.host.errors import EnumerationError, MailboxError, RegionError
from softcxl.host.system import Numbers, System
from softcxl.spec.command.memory import IDENTIFY_MEMORY_DEVICE
from softcxl.spec.command.poison import GET_POISON_LIST, GetPoisonListRequest
from tests.host.fake import GIB, MIB, machine, switch


def test_names_follow_linux(made):
    a, b, c, d = made(4)
    system = System(machine([switch(a, b), None], [c, d], windows=[{"targets": (0, 1), "size": 2 * GIB}]))
    assert system.problems == []
    # host bridges first; then with each memory device the switches above it, and its endpoint
    assert [(one.name, one.host, one.parent.name, one.depth) for one in system.ports] == [
        ("port1", "pci0000:0c", "root0", 1),
        ("port3", "0000:0d:00.0", "port1", 2),
        ("port2", "pci0000:2c", "root0", 1),
    ]
    assert [(one.name, one.memdev.name, one.parent.name, one.depth) for one in system.endpoints] == [
        ("endpoint4", "mem0", "port3", 3),
        ("endpoint5", "mem1", "port3", 3),
        ("endpoint6", "mem2", "port2", 2),
        ("endpoint7", "mem3", "port2", 2),
    ]
    first, second = system.ports[0], system.ports[1]
    # a port with nothing below it is no dport (Linux 6.18 and later)
    assert [(one.id, one.name) for one in first.dports.values()] == [(0, "0000:0c:00.0")]
    assert [(one.id, one.name) for one in second.dports.values()] == [
        (0, "0000:0e:00.0"),
        (1, "0000:0e:01.0"),
    ]
    assert [one.alias for one in system.root.dports.values()] == ["ACPI0016:00", "ACPI0016:01"]


def test_memory_devices_say_what_they_are(made):
    made(1)
    (device,) = made(1, volatile=512 * MIB, persistent=256 * MIB, label_storage=131072, serial=0xC0FFEE)
    (memdev,) = System(machine([device])).memdevs.values()
    assert (memdev.name, memdev.host, memdev.serial) == ("mem0", "0000:0d:00.0", 0xC0FFEE)
    assert memdev.partitions == {"ram": (0, 512 * MIB), "pmem": (512 * MIB, 768 * MIB)}
    assert memdev.label_storage_size == 131072
    assert memdev.firmware_version == device.fw_revision
    assert device.memory_enabled
    assert device.decoders.enabled


def test_a_command_that_fails_is_an_error_with_the_code(made):
    (device,) = made(1)
    (memdev,) = System(machine([device])).memdevs.values()
    with pytest.raises(MailboxError, match=r"Get Poison List: return code 0x2 \(invalid input\)") as caught:
        memdev.mailbox.send(GET_POISON_LIST, GetPoisonListRequest(address=1, length=1))
    assert caught.value.code == 2
    assert len(memdev.mailbox.send(IDENTIFY_MEMORY_DEVICE)) == 0x45


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        ("locator", b"\xff\xff", "no CXL DVSEC 8"),
        ("mailbox", b"", "mailbox is not ready"),
    ],
)
def test_a_device_that_does_not_hold_is_a_sentence_and_others_go_on(made, offset, value, reason):
    broken, good = made(2)
    if offset == "locator":
        broken.locator.header2.dvsec_id = 0x55
    else:
        broken.memory_status.mailbox_ready = False
    system = System(machine([broken, good], windows=[{}]))
    assert [one.host for one in system.memdevs.values()] == ["0000:0e:00.0"]
    assert len(system.problems) == 1
    assert reason in system.problems[0]
    assert system.create_region(["mem0"]).enabled


def test_no_chbs(made):
    fake = machine([made(1)[0]], windows=[{}])
    fake.bridges[0].uid = 99
    system = System(fake)
    assert "no CHBS for _UID 99" in system.problems[0]
    assert system.memdevs["mem0"].endpoint is None
    with pytest.raises(RegionError, match=r"no CXL port"):
        system.create_region(["mem0"])


def test_unknown_names(made):
    system = System(machine([made(1)[0]], windows=[{}]))
    with pytest.raises(RegionError, match=r"mem9 is no memory device here; there are mem0"):
        system.create_region(["mem9"])
    with pytest.raises(RegionError, match=r"decoder0.7 is no root decoder here; there are decoder0.0"):
        system.create_region(["mem0"], decoder="decoder0.7")
    with pytest.raises(RegionError, match=r"region9 is no region here; there are none"):
        system.destroy_region("region9")
    assert system.memdev("0000:0d:00.0") is system.memdev(0) is system.memdev("0")


def test_hot_add_and_remove_under_a_region(made):
    first, second = made(2)
    fake = machine([first, None], windows=[{}], hot_plug=True)
    system = System(fake)
    fake.bridges[0].ports[1].below[0] = second
    fake.plug(second)
    (added,) = system.hot_add("0000:0c:01.0")
    assert added.name == "mem1"
    region = system.create_region(["mem0", "mem1"])
    region.write(0, b"x" * 1024)
    fake.bridges[0].ports[1].below[0] = None
    (lost,) = system.hot_remove("0000:0c:01.0")
    assert lost is region
    assert not region.enabled
    assert "mem1 (0000:0e:00.0), position 1, is gone" in region.problem
    with pytest.raises(ValueError, match=r"region0 is not enabled: mem1"):
        region.read(0, 1)
    assert list(system.memdevs) == ["mem0"]
    system.destroy_region(region)
    assert system.create_region(["mem0"]).name == "region0"
    with pytest.raises(EnumerationError, match=r"no PCI port"):
        system.hot_remove("0000:99:00.0")


def test_numbers_are_the_lowest_that_are_free():
    numbers = Numbers(1)
    assert [numbers.take() for _ in range(3)] == [1, 2, 3]
    numbers.free(3)
    numbers.free(2)
    assert [numbers.take() for _ in range(3)] == [2, 3, 4]
