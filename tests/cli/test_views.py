"""`softcxl sysfs`, `iomem`, `events`."""

from __future__ import annotations

import json

import pytest

from softcxl.cli import main

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, serial: 0xC0FFEE01}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0]}}
    windows: [{size: 1GiB, targets: [hb0], granularity: 256}]
    regions: [{window: 0, devices: [mem0], type: ram}]
"""


@pytest.fixture
def topology(given):
    return given(TOPOLOGY)


def test_one_value(topology, capsys):
    assert main(["sysfs", topology, "/sys/bus/cxl/devices/mem0/serial"]) == 0
    assert capsys.readouterr().out == "0xc0ffee01\n"


def test_a_directory(topology, capsys):
    assert main(["sysfs", topology, "bus/cxl/devices/mem0"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "firmware_version: softcxl 1",
        "label_storage_size: 0",
        "numa_node: -1",
        "payload_max: 4096",
        "pmem/size: 0x0",
        "ram/qos_class: 0",
        "ram/size: 0x10000000",
        "security/erase (write only)",
        "security/sanitize (write only)",
        "security/state: disabled",
        "serial: 0xc0ffee01",
        "subsystem -> /sys/bus/cxl",
        "trigger_poison_list (write only)",
        r'uevent: "DEVTYPE=cxl_memdev\nDRIVER=cxl_mem\nMODALIAS=cxl:t5"',
    ]


def test_the_bus_as_json(topology, capsys):
    assert main(["sysfs", topology, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["region0"]["resource"] == "0x100000000"
    assert answer["mem0"]["subsystem"] == {"link": "bus/cxl"}


def test_bytes_as_they_are(topology, capfdbinary):
    assert main(["sysfs", topology, "bus/pci/devices/0000:01:00.0/config"]) == 0
    out = capfdbinary.readouterr().out
    # a header of type 0 at 0Eh, and the class of a CXL memory device (PCI Code and ID Assignment 1.14: 05 02 10)
    assert (out[0x0E] & 0x7F, out[0x09:0x0C]) == (0, bytes((0x10, 0x02, 0x05)))
    with pytest.raises(UnicodeDecodeError):
        out.decode()


def test_writing_an_attribute(topology, capsys):
    assert main(["sysfs", topology, "kernel/debug/cxl/mem0/inject_poison", "--write", "0x1000"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["sysfs", topology, "bus/cxl/devices/mem0/serial", "-w", "1"]) == 1
    where = "/sys/bus/cxl/devices/mem0/serial"
    assert capsys.readouterr().err == f"softcxl: {where}: it is not to be written (EACCES)\n"
    assert main(["sysfs", topology, "kernel/debug/cxl/mem0/inject_poison", "-w", "7"]) == 1
    assert "(EINVAL)" in capsys.readouterr().err


def test_what_is_not_there(topology, capsys):
    assert main(["sysfs", topology, "bus/cxl/devices/mem7"]) == 1
    assert capsys.readouterr().err == "softcxl: /sys/bus/cxl/devices/mem7: there is no mem7 (ENOENT)\n"


def test_iomem(topology, capsys):
    assert main(["iomem", topology]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "100000000-13fffffff : CXL Window 0",
        "  100000000-10fffffff : region0",
        "    100000000-10fffffff : dax0.0",
    ]


def test_iomem_as_json(topology, capsys):
    assert main(["iomem", topology, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"depth": 0, "start": 1 << 32, "end": (1 << 32) + (1 << 30) - 1, "name": "CXL Window 0"},
        {"depth": 1, "start": 1 << 32, "end": (1 << 32) + (256 << 20) - 1, "name": "region0"},
        {"depth": 2, "start": 1 << 32, "end": (1 << 32) + (256 << 20) - 1, "name": "dax0.0"},
    ]


def test_events_of_devices_that_are_well(topology, capsys):
    assert main(["events", topology, "--poison", "--json"]) == 0
    assert capsys.readouterr().out == ""
