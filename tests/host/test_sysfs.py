"""sysfs as Linux has it: names, modes, formats. Values are those that a guest showed, or follow from sysfs-bus-cxl."""

from __future__ import annotations

import errno
import os

import pytest

from softcxl import Fabric
from softcxl.host.sysfs import SysfsError

CXL = "bus/cxl/devices"
MIB = 1 << 20
TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, persistent: 256MiB, label_storage: 128KiB, serial: 0xC0FFEE01}
  mem1: {volatile: 256MiB, serial: 0xC0FFEE02}
switches:
  sw0: {ports: [mem1]}
hosts:
  alpha:
    bridges: {hb0: {ports: [mem0, sw0]}, hb1: {ports: [null]}}
    windows:
      - {size: 1GiB, targets: [hb0], granularity: 256}
      - {size: 1GiB, targets: [hb0, hb1], granularity: 4KiB, restrictions: [volatile], qtg: 3}
"""


@pytest.fixture
def system():
    with Fabric.loads(TOPOLOGY) as fabric:
        yield fabric.hosts["alpha"].boot()


@pytest.fixture
def sysfs(system):
    return system.sysfs


def refused(sysfs, path, text):
    with pytest.raises(SysfsError) as refusal:
        sysfs[path] = text
    assert str(refusal.value).startswith(f"/sys/{path}: ")
    return refusal.value.name


def test_every_device_is_on_the_bus(sysfs):
    assert sysfs.list(CXL) == [
        *("decoder0.0", "decoder0.1"),
        *(f"decoder1.{number}" for number in range(8)),
        *(f"decoder3.{number}" for number in range(4)),
        *(f"decoder4.{number}" for number in range(8)),
        *(f"decoder5.{number}" for number in range(4)),
        *(
            "endpoint3",
            "endpoint5",
            "mem0",
            "mem1",
            "nvdimm-bridge0",
            "pmem0",
            "port1",
            "port2",
            "port4",
            "root0",
        ),
    ]
    for name in sysfs.list(CXL):
        assert sysfs.link(f"{CXL}/{name}").endswith(f"/{name}")
        assert sysfs.link(f"{CXL}/{name}/subsystem") == "bus/cxl"


def test_a_memory_device(sysfs):
    wanted = {
        "firmware_version": "softcxl 1",
        "label_storage_size": "131072",
        "numa_node": "-1",
        "payload_max": "4096",
        "pmem/qos_class": "0",
        "pmem/size": "0x10000000",
        "ram/qos_class": "0",
        "ram/size": "0x10000000",
        "security/state": "disabled",
        "serial": "0xc0ffee01",
        "uevent": "DEVTYPE=cxl_memdev\nDRIVER=cxl_mem\nMODALIAS=cxl:t5",
    }
    assert {name: sysfs[f"{CXL}/mem0/{name}"] for name in wanted} == wanted
    assert sysfs[f"{CXL}/mem1/pmem/size"] == "0x0"
    assert "qos_class" not in sysfs.list(f"{CXL}/mem1/pmem")
    assert "pmem1" not in sysfs.list(f"{CXL}/mem1")


def test_a_root_decoder(sysfs):
    wanted = {
        "cap_pmem": "0",
        "cap_ram": "1",
        "cap_type2": "0",
        "cap_type3": "1",
        "devtype": "cxl_decoder_root",
        "create_ram_region": "region1",
        "interleave_granularity": "4096",
        "interleave_ways": "2",
        "locked": "0",
        "modalias": "cxl:t0",
        "qos_class": "3",
        "size": "0x40000000",
        "start": "0x140000000",
        "target_list": "0,1",
    }
    assert {name: sysfs[f"{CXL}/decoder0.1/{name}"] for name in wanted} == wanted
    assert "create_pmem_region" not in sysfs.list(f"{CXL}/decoder0.1")
    assert sysfs[f"{CXL}/decoder0.0/create_pmem_region"] == "region0"


def test_ports_and_what_leads_to_them(system, sysfs):
    root = "devices/platform/ACPI0017:00/root0"
    assert sysfs.link(f"{CXL}/endpoint5") == f"{root}/port1/port4/endpoint5"
    upstream = system.memdevs["mem1"].node.parent.parent
    assert sysfs.link(f"{CXL}/port4/uport").endswith(f"/{upstream.parent.name}/{upstream.name}")
    assert sysfs.link(f"{CXL}/endpoint5/uport").endswith(f"/{system.memdevs['mem1'].host}/mem1")
    assert sysfs.link(f"{CXL}/root0/uport") == "devices/platform/ACPI0017:00"
    assert sysfs.link(f"{CXL}/root0/dport1") == f"devices/{system.buses[1].name}"
    assert [sysfs[f"{CXL}/{name}/modalias"] for name in ("root0", "port1", "endpoint3")] == [
        *("cxl:t4", "cxl:t3", "cxl:t3")
    ]
    # a link is followed, wherever it is on the way
    assert sysfs[f"{CXL}/endpoint5/uport/serial"] == "0xc0ffee02"


def test_decoders_before_and_in_a_region(system, sysfs):
    unused = {"dpa_resource": "0xffffffffffffffff", "dpa_size": "0x0000000000000000", "mode": "none"}
    assert {name: sysfs[f"{CXL}/decoder3.0/{name}"] for name in unused} == unused
    system.create_region(["mem0"], type="pmem", decoder="decoder0.0")
    used = {
        "dpa_resource": "0x10000000",
        "dpa_size": "0x0000000010000000",
        "mode": "pmem",
        "region": "region0",
        "start": "0x100000000",
        "size": "0x10000000",
        "target_type": "expander",
    }
    assert {name: sysfs[f"{CXL}/decoder3.0/{name}"] for name in used} == used
    above = {"region": "region0", "target_list": "0", "size": "0x10000000"}
    assert {name: sysfs[f"{CXL}/decoder1.0/{name}"] for name in above} == above
    assert sysfs[f"{CXL}/port1/decoders_committed"] == sysfs[f"{CXL}/endpoint3/decoders_committed"] == "1"


def test_a_volatile_region_and_its_device_dax(system, sysfs):
    system.create_region(["mem0"], type="ram", decoder="decoder0.0")
    wanted = {
        "commit": "1",
        "interleave_granularity": "256",
        "interleave_ways": "1",
        "locked": "0",
        "mode": "ram",
        "resource": "0x100000000",
        "size": "0x10000000",
        "target0": "decoder3.0",
        "uuid": "",
    }
    assert {name: sysfs[f"{CXL}/region0/{name}"] for name in wanted} == wanted
    assert sysfs[f"{CXL}/dax_region0/dax_region/size"] == "268435456"
    dax = {"target_node": "1", "size": "268435456", "mapping0/end": "0x10fffffff", "resource": "0x100000000"}
    assert {name: sysfs[f"bus/dax/devices/dax0.0/{name}"] for name in dax} == dax
    assert refused(sysfs, f"{CXL}/region0/uuid", "0a0b0c0d-0102-4304-8506-0708090a0b0c") == "EACCES"


def test_a_pci_function(system, sysfs):
    name = system.memdevs["mem0"].host
    wanted = {
        "class": "0x050210",
        "vendor": "0x1e98",
        "device": "0x0001",
        "revision": "0x00",
        "serial_number": "00-00-00-00-c0-ff-ee-01",
        "modalias": "pci:v00001E98d00000001sv00000000sd00000000bc05sc02i10",
    }
    assert {key: sysfs[f"bus/pci/devices/{name}/{key}"] for key in wanted} == wanted
    assert sysfs.read_bytes(f"bus/pci/devices/{name}/config")[:4] == bytes.fromhex("981e0100")
    lines = sysfs[f"bus/pci/devices/{name}/resource"].splitlines()
    assert len(lines) == 7
    bar = system.memdevs["mem0"].node.bars[0]
    assert lines[0] == f"{bar.address:#018x} {bar.address + bar.size - 1:#018x} 0x0000000000140204"


def test_paths_that_are_not_there_or_are_of_another_kind(sysfs):
    for path, wanted in (
        (f"{CXL}/mem7/serial", "ENOENT"),
        (f"{CXL}/mem0/serial/more", "ENOTDIR"),
        (f"{CXL}/mem0", "EISDIR"),
        (f"{CXL}/mem0/trigger_poison_list", "EACCES"),
    ):
        with pytest.raises(SysfsError) as refusal:
            sysfs[path]
        assert refusal.value.errno == getattr(errno, wanted)
        assert refusal.value.filename == f"/sys/{path}"
    assert refused(sysfs, f"{CXL}/mem0/serial", "1") == "EACCES"
    with pytest.raises(SysfsError, match="no directory"):
        sysfs.list(f"{CXL}/mem0/serial")
    with pytest.raises(SysfsError, match="no link"):
        sysfs.link(f"{CXL}/mem0/serial")
    assert f"{CXL}/mem0" in sysfs
    assert f"{CXL}/mem7" not in sysfs


def test_as_text_and_as_a_tree(sysfs):
    walked = dict(sysfs.walk())
    assert os.fspath("mem0/ram/size") in walked
    # devices inside devices are listed once, under their own names
    assert not any(path.startswith("port1/endpoint3") for path in walked)
    tree = sysfs.tree()
    assert tree["mem0"]["ram"]["size"] == "0x10000000"
    assert tree["mem0"]["trigger_poison_list"] is None
    assert tree["endpoint3"]["subsystem"] == {"link": "bus/cxl"}
    assert sysfs.tree("/sys/bus/cxl/devices/mem0/serial") == "0xc0ffee01"


# -- writing -----------------------------------------------------------------------------------------------------


def made(sysfs, kind="ram", ways=1):
    """As far as `size`, which is the next."""
    sysfs[f"{CXL}/decoder0.0/create_{kind}_region"] = "region0"
    sysfs[f"{CXL}/region0/interleave_ways"] = ways
    sysfs[f"{CXL}/region0/interleave_granularity"] = 256
    return f"{CXL}/region0"


def test_a_region_by_the_steps_of_cxl_create_region(system, sysfs):
    region = made(sysfs)
    assert (sysfs[f"{region}/resource"], sysfs[f"{region}/size"]) == ("0xffffffffffffffff", "0x0")
    assert sysfs[f"{region}/commit"] == "0"
    assert sysfs[f"{CXL}/decoder0.0/create_ram_region"] != "region0"
    sysfs[f"{region}/size"] = "0x10000000"
    sysfs[f"{CXL}/decoder3.0/mode"] = "ram"
    sysfs[f"{CXL}/decoder3.0/dpa_size"] = 256 * MIB
    sysfs[f"{region}/target0"] = "decoder3.0"
    assert sysfs[f"{CXL}/decoder1.0/region"] == "region0"
    sysfs[f"{region}/commit"] = "1"
    assert not system.regions["region0"].enabled
    sysfs["bus/cxl/drivers/cxl_region/bind"] = "region0"
    system.regions["region0"].write(0, b"by sysfs")
    assert system.regions["region0"].load(0, 8) == b"by sysfs"
    # the same as when it is made at once
    assert system.listing()[1]["regions"][0] == {
        "region": "region0",
        "resource": 4 << 30,
        "size": 256 * MIB,
        "type": "ram",
        "interleave_ways": 1,
        "interleave_granularity": 256,
        "decode_state": "commit",
        "locked": False,
    }
    sysfs[f"{region}/commit"] = "0"
    assert sysfs[f"{CXL}/port1/decoders_committed"] == "0"
    sysfs[f"{CXL}/decoder0.0/delete_region"] = "region0"
    assert system.regions == {}
    # its device addresses stay with the decoder until they are given back
    assert sysfs[f"{CXL}/decoder3.0/dpa_size"] == "0x0000000010000000"
    sysfs[f"{CXL}/decoder3.0/dpa_size"] = 0
    assert system.create_region(["mem0"], type="ram").name == "region0"


def test_what_linux_refuses_on_the_way(sysfs):
    assert refused(sysfs, f"{CXL}/decoder0.0/create_ram_region", "nonsense") == "EINVAL"
    assert refused(sysfs, f"{CXL}/decoder0.0/create_ram_region", "region7") == "EBUSY"
    assert refused(sysfs, f"{CXL}/decoder0.0/delete_region", "region0") == "ENODEV"
    region = made(sysfs)
    assert refused(sysfs, f"{region}/interleave_ways", "5") == "EINVAL"
    assert refused(sysfs, f"{region}/interleave_ways", "-1") == "EINVAL"
    assert refused(sysfs, f"{region}/interleave_granularity", "300") == "EINVAL"
    assert refused(sysfs, f"{region}/size", "0x1000000") == "EINVAL"
    assert refused(sysfs, f"{region}/size", "0x1000000000") == "ERANGE"
    assert refused(sysfs, f"{region}/target0", "decoder3.0") == "ENODEV"  # no mode
    assert refused(sysfs, f"{region}/target0", "decoder1.0") == "EINVAL"
    assert refused(sysfs, f"{region}/target0", "decoder77.0") == "ENODEV"
    sysfs[f"{CXL}/decoder3.0/mode"] = "ram"
    assert refused(sysfs, f"{region}/target0", "decoder3.0") == "ENXIO"  # no size of the region
    sysfs[f"{region}/size"] = "0x20000000"
    assert refused(sysfs, f"{region}/size", "0x10000000") == "EBUSY"
    assert refused(sysfs, f"{region}/interleave_ways", "2") == "EBUSY"
    assert refused(sysfs, f"{region}/target0", "decoder3.0") == "ENXIO"  # nothing allocated
    sysfs[f"{CXL}/decoder3.0/dpa_size"] = "0x10000000"
    assert refused(sysfs, f"{region}/target0", "decoder3.0") == "EINVAL"  # half of the region's size
    sysfs[f"{region}/size"] = 0
    sysfs[f"{region}/size"] = "0x10000000"
    assert refused(sysfs, f"{region}/commit", "1") == "ENXIO"
    assert refused(sysfs, f"{region}/commit", "perhaps") == "EINVAL"
    sysfs[f"{region}/target0"] = "decoder3.0"
    assert refused(sysfs, f"{region}/target0", "decoder5.0") == "ENODEV"
    assert refused(sysfs, f"{region}/size", "0") == "EBUSY"
    assert refused(sysfs, f"{CXL}/decoder3.0/dpa_size", "0") == "EBUSY"
    sysfs[f"{region}/target0"] = "\n"
    assert sysfs[f"{region}/target0"] == sysfs[f"{CXL}/decoder1.0/region"] == ""


def test_what_linux_refuses_of_a_decoder(sysfs):
    decoder = f"{CXL}/decoder3.0"
    assert refused(sysfs, f"{decoder}/mode", "mixed") == "EINVAL"
    assert refused(sysfs, f"{CXL}/decoder5.0/mode", "pmem") == "EINVAL"
    assert refused(sysfs, f"{decoder}/dpa_size", "0x10000000") == "EBUSY"
    sysfs[f"{decoder}/mode"] = "ram"
    assert refused(sysfs, f"{decoder}/dpa_size", "4096") == "EINVAL"
    assert refused(sysfs, f"{decoder}/dpa_size", "words") == "EINVAL"
    assert refused(sysfs, f"{decoder}/dpa_size", "0x20000000") == "ENOSPC"
    sysfs[f"{CXL}/decoder3.1/mode"] = "ram"
    assert refused(sysfs, f"{CXL}/decoder3.1/dpa_size", "0x10000000") == "EBUSY"


def test_the_uuid_of_a_persistent_region(system, sysfs):
    region = made(sysfs, "pmem")
    uuid = "0a0b0c0d-0102-4304-8506-0708090a0b0c"
    assert sysfs[f"{region}/uuid"] == "00000000-0000-0000-0000-000000000000"
    assert refused(sysfs, f"{region}/size", "0x10000000") == "ENXIO"
    assert refused(sysfs, f"{region}/uuid", "00000000-0000-0000-0000-000000000000") == "EINVAL"
    assert refused(sysfs, f"{region}/uuid", uuid[:-1]) == "EINVAL"
    sysfs[f"{region}/uuid"] = uuid + "\n"
    assert sysfs[f"{region}/uuid"] == uuid
    second = sysfs[f"{CXL}/decoder0.0/create_pmem_region"]
    sysfs[f"{CXL}/decoder0.0/create_pmem_region"] = second
    assert refused(sysfs, f"{CXL}/{second}/uuid", uuid) == "EBUSY"


def test_poison_by_debugfs(system, sysfs):
    debug = "kernel/debug/cxl"
    sysfs[f"{debug}/mem0/inject_poison"] = "0x1000"
    assert refused(sysfs, f"{debug}/mem0/inject_poison", "0x1001") == "EINVAL"
    assert refused(sysfs, f"{debug}/mem0/inject_poison", "0x20000000") == "EINVAL"
    region = system.create_region(["mem0"], type="ram", decoder="decoder0.0")
    with pytest.raises(Exception, match="poison"):
        region.read(0x1000, 8)
    sysfs[f"{debug}/region0/clear_poison"] = "0x1000"
    assert region.read(0x1000, 8) == bytes(8)
    assert refused(sysfs, f"{debug}/region0/inject_poison", "0x10000000") == "EINVAL"


def test_sanitize_needs_a_device_without_committed_decoders(system, sysfs):
    region = system.create_region(["mem0"], type="ram", decoder="decoder0.0")
    assert refused(sysfs, f"{CXL}/mem0/security/sanitize", "1") == "EBUSY"
    assert refused(sysfs, f"{CXL}/mem0/security/sanitize", "0") == "EINVAL"
    system.destroy_region(region)
    sysfs[f"{CXL}/mem0/security/sanitize"] = "1"
