"""What a driver finds first: DVSECs, register blocks, capabilities. Numbers are those of Linux's
include/uapi/linux/pci_regs.h and drivers/cxl/cxl.h, or of QEMU's hw/mem/cxl_type3.c where that is said."""

import mmap
from itertools import pairwise

import pytest

from softcxl.testing.driver import CONFIG, Driver
from softcxl.wire import DeclarationError, Reset
from tests.device.conftest import GIB, MIB

DEVICE_DVSEC, FLEX_BUS_DVSEC, GPF_DVSEC, LOCATOR_DVSEC = 0, 7, 5, 8
CAPABILITY, CONTROL, LOCK = 0x0A, 0x0C, 0x14
MEM_ENABLE = 1 << 2


def test_class_vendor_and_serial(device, driver):
    assert driver.read32(CONFIG, 0x08) >> 8 == 0x050210
    assert driver.read16(CONFIG, 0) == 0x1E98
    serial = next(offset for capability, offset in driver.extended_capabilities() if capability == 0x0003)
    assert driver.read64(CONFIG, serial + 4) == 0xC0FFEE01


def test_extended_capabilities_are_a_list_without_overlap(driver):
    found = list(driver.extended_capabilities())
    assert [capability for capability, _ in found] == [0x01, 0x03, 0x23, 0x23, 0x23, 0x23, 0x2E]
    offsets = [offset for _, offset in found]
    assert offsets == sorted(offsets)
    assert all(offset % 4 == 0 for offset in offsets)


def test_device_dvsec(driver):
    at = driver.dvsec(DEVICE_DVSEC)
    capability = driver.read16(CONFIG, at + CAPABILITY)
    assert capability & 1 << 2  # Mem_Capable
    assert capability & 1 << 1  # IO_Capable
    assert not capability & 1 << 0  # no cache
    assert capability >> 4 & 3 == 1  # HDM_Count
    size = driver.read32(CONFIG, at + 0x18) << 32 | driver.read32(CONFIG, at + 0x1C) & 0xF000_0000
    assert size == 512 * MIB
    assert driver.read32(CONFIG, at + 0x1C) & 3 == 3  # Memory_Info_Valid, Memory_Active
    assert driver.read32(CONFIG, at + 4) >> 20 == 0x3C


@pytest.mark.parametrize("size", [256 * MIB, 4 * GIB, 5 * GIB, 1 << 40])
def test_range_size_of_large_devices(make, size):
    driver = Driver(make(volatile=size, persistent=0))
    at = driver.dvsec(DEVICE_DVSEC)
    assert driver.read32(CONFIG, at + 0x18) << 32 | driver.read32(CONFIG, at + 0x1C) & 0xF000_0000 == size


def test_flex_bus_says_that_the_link_runs_cxl(driver):
    assert driver.read16(CONFIG, driver.dvsec(FLEX_BUS_DVSEC) + 0x0E) & 1 << 2  # Mem_Enabled


def test_mem_enable(device, driver):
    """As cxl_set_mem_enable does it."""
    at = driver.dvsec(DEVICE_DVSEC)
    control = driver.read16(CONFIG, at + CONTROL)
    assert not control & MEM_ENABLE
    assert not device.memory_enabled
    driver.write16(CONFIG, at + CONTROL, control | MEM_ENABLE)
    assert driver.read16(CONFIG, at + CONTROL) == control | MEM_ENABLE
    assert device.memory_enabled


def test_range_base_is_software_s(driver):
    at = driver.dvsec(DEVICE_DVSEC)
    driver.write32(CONFIG, at + 0x20, 0x12)
    driver.write32(CONFIG, at + 0x24, 0xFFFF_FFFF)
    assert driver.read32(CONFIG, at + 0x20) == 0x12
    assert driver.read32(CONFIG, at + 0x24) == 0xF000_0000
    driver.write32(CONFIG, at + 0x18, 0xFFFF_FFFF)
    assert driver.read32(CONFIG, at + 0x18) == 0


def test_config_lock(device, driver):
    """CONFIG_LOCK freezes control and range bases until a conventional reset, and cannot be taken back."""
    at = driver.dvsec(DEVICE_DVSEC)
    driver.write16(CONFIG, at + CONTROL, MEM_ENABLE)
    driver.write32(CONFIG, at + 0x24, 0x3000_0000)
    driver.write16(CONFIG, at + LOCK, 1)

    def frozen():
        driver.write16(CONFIG, at + CONTROL, 0)
        driver.write32(CONFIG, at + 0x24, 0x4000_0000)
        driver.write16(CONFIG, at + LOCK, 0)
        return (
            driver.read16(CONFIG, at + CONTROL) & MEM_ENABLE,
            driver.read32(CONFIG, at + 0x24),
            driver.read16(CONFIG, at + LOCK),
        ) == (MEM_ENABLE, 0x3000_0000, 1)

    assert frozen()
    device.reset(Reset.FLR)
    assert frozen()
    device.reset()
    assert driver.read16(CONFIG, at + LOCK) == 0
    driver.write16(CONFIG, at + CONTROL, MEM_ENABLE)
    driver.write32(CONFIG, at + 0x24, 0x4000_0000)
    assert driver.read32(CONFIG, at + 0x24) == 0x4000_0000
    driver.write16(CONFIG, at + CONTROL, 0)
    assert not device.memory_enabled


def test_a_cache_that_is_not_there_is_not_written_back(driver):
    at = driver.dvsec(DEVICE_DVSEC) + 0x10
    driver.write16(CONFIG, at, 0b0011)
    assert driver.read16(CONFIG, at) == 0b0001


def test_register_locator(driver):
    assert driver.blocks == {1: (0, 0), 3: (2, 0)}
    assert driver.read32(CONFIG, driver.dvsec(LOCATOR_DVSEC) + 4) >> 20 == 0x0C + 2 * 8


# -- component registers -------------------------------------------------------------------------------------


def test_component_capabilities(driver):
    head = driver.read32(0, 0x1000)
    assert head & 0xFFFF == 1  # CM_CAP_HDR_CAP_ID
    assert head >> 16 & 0xF == 1  # CM_CAP_HDR_CAP_VERSION
    assert head >> 20 & 0xF == 1  # CM_CAP_HDR_CACHE_MEM_VERSION
    assert driver.component_capability(2)[1] + 0x58 <= driver.component_capability(5)[1]
    with pytest.raises(LookupError):
        driver.component_capability(9)


def test_ras_registers(driver):
    """Masks of drivers/cxl/cxl.h: bits 16:14 and 11:0 uncorrectable, 6:0 correctable."""
    bar, ras = driver.component_capability(2)
    uncorrectable, correctable = 0x1CFFF, 0x7F
    assert driver.read32(bar, ras + 0x0) == driver.read32(bar, ras + 0xC) == 0
    for offset, mask in ((0x4, uncorrectable), (0x8, uncorrectable), (0x10, correctable)):
        assert driver.read32(bar, ras + offset) == mask
        driver.write32(bar, ras + offset, 0)
        assert driver.read32(bar, ras + offset) == 0
        driver.write32(bar, ras + offset, 0xFFFF_FFFF)
        assert driver.read32(bar, ras + offset) == mask


def test_ras_status_is_cleared_by_ones(device, driver):
    bar, ras = driver.component_capability(2)
    device.ras.registers.uncorrectable_status.mem_data_parity = True
    device.ras.registers.uncorrectable_status.internal = True
    driver.write32(bar, ras, 1 << 4)
    assert driver.read32(bar, ras) == 1 << 14


@pytest.mark.parametrize(
    ("count", "code"), [(1, 0), (2, 1), (4, 2), (6, 3), (8, 4), (10, 5), (16, 8), (32, 12)]
)
def test_hdm_decoder_capability(make, count, code):
    driver = Driver(make(decoders=count))
    bar, hdm = driver.component_capability(5)
    capability = driver.read32(bar, hdm)
    assert capability & 0xF == code  # CXL_HDM_DECODER_COUNT_MASK, cxl_hdm_decoder_count()
    assert capability >> 4 & 0xF == 0  # no targets
    assert capability >> 8 & 3 == 3  # INTERLEAVE_11_8, INTERLEAVE_14_12
    assert capability >> 11 & 3 == 3  # 3, 6 and 12 ways, 16 ways
    driver.write32(bar, hdm + 4, 0xFFFF_FFFF)
    assert driver.read32(bar, hdm + 4) == 3
    assert driver.commit(0, 4 * GIB, 256 * MIB)


def test_too_many_decoders(make):
    with pytest.raises(ValueError, match="3 HDM decoders: possible are 1, 2, 4"):
        make(decoders=3)


# -- device registers ----------------------------------------------------------------------------------------


def test_device_capabilities(driver):
    head = driver.read64(2, 0)
    assert head & 0xFFFF == 0
    assert head >> 24 & 0xF == 1  # memory device
    assert head >> 32 & 0xFFFF == 3
    assert driver.capabilities.keys() == {0x1, 0x2, 0x4000}
    ranges = sorted(driver.capabilities.values())
    assert ranges[0][0] >= 0x10 * 4
    for (start, length), (following, _) in pairwise(ranges):
        assert start + length <= following


def test_memory_device_status(driver):
    """CXLMDEV_READY: media ready, mailbox ready, no reset needed."""
    at = driver.capabilities[0x4000][0]
    assert driver.read64(2, at) == 0b000_1_01_00


def test_mailbox_capabilities(driver):
    value = driver.read32(2, driver.mailbox)
    assert value & 0x1F == 12  # 4 KiB
    assert value >> 5 & 3 == 3  # both interrupts
    assert value >> 7 & 0xF == 0


def test_the_mailbox_can_be_mapped_from_its_command_register_on(device, driver):
    """The control register, where the doorbell is, must be seen to be written: it is in the page before."""
    region = device.regions()[2]
    assert region.mappable == ((0x2000, 0x2000),)
    assert driver.mailbox + 0x08 == 0x2000
    assert region.fd is not None


def test_what_a_guest_stores_in_mapped_registers_lasts_until_the_next_command(device, driver):
    with mmap.mmap(device.regions()[2].fd, 0x4000) as shared:
        shared[0x2000:0x2018] = b"\xff" * 0x18  # command, status and background status
        assert driver.send(0x4000)[0] == 0
        assert shared[0x2008:0x2018] == bytes(0x10)
        assert shared[0x2018:0x2021] == b"softcxl 1"


def test_progress_shows_in_mapped_registers(device, driver, clock):
    with mmap.mmap(device.regions()[2].fd, 0x4000) as shared:
        assert driver.send(0x4400)[0] == 1
        seconds = device.media.seconds
        clock.advance(seconds / 2)
        assert shared[0x2008] & 1
        assert 40 <= shared[0x2012] & 0x7F <= 50
        clock.advance(seconds)
        assert not shared[0x2008] & 1
        assert shared[0x2012] & 0x7F == 100


@pytest.mark.parametrize("payload", [256, 512, 2048, 8192, 1 << 20])
def test_payload_sizes(make, payload):
    device = make(payload=payload)
    driver = Driver(device)
    assert driver.payload_max == payload
    region = device.regions()[2]
    ((start, length),) = region.mappable
    assert start == 0x2000
    assert start + length == -(-(0x2018 + payload) // 4096) * 4096
    assert region.size & region.size - 1 == 0
    assert start + length <= region.size
    assert driver.send(0x4000)[0] == 0


def test_payload_sizes_that_are_not_allowed(make):
    for payload in (128, 300, 2 << 20):
        with pytest.raises(ValueError, match=f"mailbox payload of {payload} bytes"):
            make(payload=payload)


def test_vendor_capabilities_run_out_of_room(device):
    for number in range(4):
        device.device_registers.list_capability(0x8000 + number, 1, 0x100, 8)
    with pytest.raises(DeclarationError, match="overlaps"):
        device.device_registers.list_capability(0x8004, 1, 0x100, 8)


# -- CDAT ----------------------------------------------------------------------------------------------------


def test_cdat(driver):
    """Walked as drivers/cxl/core/cdat.c and drivers/acpi/tables.c do."""
    table = driver.cdat()
    length = int.from_bytes(table[:4], "little")
    assert length == len(table)
    assert sum(table) % 256 == 0
    entries, at = [], 16
    while at < length:
        size = int.from_bytes(table[at + 2 : at + 4], "little")
        entries.append(table[at : at + size])
        at += size
    ranges = [entry for entry in entries if entry[0] == 0]
    assert [(one[4], one[5] & 1 << 2) for one in ranges] == [(0, 0), (1, 4)]  # handle, non-volatile
    spans = [(int.from_bytes(one[8:16], "little"), int.from_bytes(one[16:24], "little")) for one in ranges]
    assert spans == [(0, 256 * MIB), (256 * MIB, 256 * MIB)]
    timings = [entry for entry in entries if entry[0] == 1]
    assert sorted({(one[4], one[6]) for one in timings}) == [
        (handle, kind) for handle in (0, 1) for kind in (1, 2, 4, 5)
    ]
    read_latency = next(one for one in timings if (one[4], one[6]) == (0, 1))
    unit, value = int.from_bytes(read_latency[8:16], "little"), int.from_bytes(read_latency[16:18], "little")
    assert unit * value == 150_000  # ps


def test_cdat_of_a_volatile_device_has_one_range(make):
    table = Driver(make(persistent=0)).cdat()
    assert len(table) == 16 + 24 + 4 * 24 + 24


@pytest.mark.parametrize(
    "body", [b"\1\0\0\0", b"\0\1\0\0", b"\0\0\x63\0", b"\0\0\xff\xff", b"", b"\0\0\0\0\0\0\0\0"]
)
def test_requests_for_no_entry_get_no_answer(driver, body):
    assert driver.exchange(0x1E98, 2, body) is None


def test_cdat_rebuilt_is_another_table(device, driver):
    before = driver.cdat()
    device.cdat.build(device.capacity)
    after = driver.cdat()
    assert before[12:16] != after[12:16]
    assert before[16:] == after[16:]
