"""Protocol errors injected, read back as Linux's drivers/cxl/core/ras.c does: offsets and masks are those of
drivers/cxl/cxl.h, AER's those of pci_regs.h, and the bits' meanings those of drivers/cxl/core/trace.h."""

import pytest

from softcxl.pci.aer import Kind
from softcxl.testing.driver import CONFIG
from softcxl.wire import Reset

UNCORRECTABLE, UNCORRECTABLE_MASK, SEVERITY, CORRECTABLE, CORRECTABLE_MASK, CONTROL, HEADER = (
    0x0,
    0x4,
    0x8,
    0xC,
    0x10,
    0x14,
    0x18,
)
AER, AER_UNCORRECTABLE, AER_UNCORRECTABLE_MASK, AER_SEVERITY, AER_CORRECTABLE, AER_CORRECTABLE_MASK = (
    1,
    0x04,
    0x08,
    0x0C,
    0x10,
    0x14,
)
INTERNAL, CORRECTED_INTERNAL = 1 << 22, 1 << 14
EXPRESS, DEVCTL, DEVSTA = 0x10, 0x08, 0x0A

# show_uc_errs and show_ce_errs
UNCORRECTABLE_ERRORS = {
    0: "cache_data_parity",
    1: "cache_address_parity",
    2: "cache_be_parity",
    3: "cache_data_ecc",
    4: "mem_data_parity",
    5: "mem_address_parity",
    6: "mem_be_parity",
    7: "mem_data_ecc",
    8: "reinit_threshold",
    9: "reserved_encoding",
    10: "poison_received",
    11: "receiver_overflow",
    14: "internal",
    15: "ide_tx",
    16: "ide_rx",
}
CORRECTABLE_ERRORS = {
    0: "cache_data_ecc",
    1: "mem_data_ecc",
    2: "crc_threshold",
    3: "retry_threshold",
    4: "cache_poison_received",
    5: "mem_poison_received",
    6: "physical_layer",
}


class Ras:
    """The registers by their offsets, with everything unmasked and reported, as a careful system has it."""

    def __init__(self, driver):
        self.driver = driver
        self.bar, self.at = driver.component_capability(2)
        self.aer = next(at for ident, at in driver.extended_capabilities() if ident == AER)
        self.express = next(at for ident, at in driver.capability_list() if ident == EXPRESS)
        for mask in (UNCORRECTABLE_MASK, CORRECTABLE_MASK):
            self[mask] = 0
        for mask in (AER_UNCORRECTABLE_MASK, AER_CORRECTABLE_MASK):
            driver.write32(CONFIG, self.aer + mask, 0)
        driver.write16(CONFIG, self.express + DEVCTL, 0x7)

    def __getitem__(self, offset):
        return self.driver.read32(self.bar, self.at + offset)

    def __setitem__(self, offset, value):
        self.driver.write32(self.bar, self.at + offset, value)

    @property
    def pointer(self):
        return self[CONTROL] & 0x3F

    def aer_status(self, offset):
        return self.driver.read32(CONFIG, self.aer + offset)


@pytest.fixture
def ras(driver):
    return Ras(driver)


@pytest.mark.parametrize(("bit", "error"), UNCORRECTABLE_ERRORS.items())
def test_every_uncorrectable_error(device, ras, bit, error):
    assert device.ras.inject(error, header=[0x11110000 + bit, *range(15)]) is Kind.FATAL
    assert ras[UNCORRECTABLE] == 1 << bit
    assert ras.pointer == bit
    assert [ras[HEADER + 4 * place] for place in range(16)] == [0x11110000 + bit, *range(15)]
    assert ras[CORRECTABLE] == 0
    assert ras.aer_status(AER_UNCORRECTABLE) == INTERNAL
    assert ras.driver.read16(CONFIG, ras.express + DEVSTA) & 0xF == 0x4
    ras[UNCORRECTABLE] = 1 << bit
    assert ras[UNCORRECTABLE] == 0


@pytest.mark.parametrize(("bit", "error"), CORRECTABLE_ERRORS.items())
def test_every_correctable_error(device, ras, bit, error):
    assert device.ras.inject(error, correctable=True) is Kind.CORRECTABLE
    assert ras[CORRECTABLE] == 1 << bit
    assert ras[UNCORRECTABLE] == 0
    assert ras.aer_status(AER_CORRECTABLE) == CORRECTED_INTERNAL
    assert ras.aer_status(AER_UNCORRECTABLE) == 0
    ras[CORRECTABLE] = 0x7F
    assert ras[CORRECTABLE] == 0


def test_all_is_masked_until_software_unmasks_it(device, driver):
    assert device.ras.inject("mem_data_parity", header=[7]) is None
    assert device.ras.inject("crc_threshold", correctable=True) is None
    bar, at = driver.component_capability(2)
    assert driver.read32(bar, at + UNCORRECTABLE) == 1 << 4
    assert driver.read32(bar, at + CORRECTABLE) == 1 << 2
    assert driver.read32(bar, at + CONTROL) & 0x3F == driver.read32(bar, at + HEADER) == 0
    aer = next(place for ident, place in driver.extended_capabilities() if ident == AER)
    assert driver.read32(CONFIG, aer + AER_UNCORRECTABLE) == 0


def test_an_error_is_fatal_where_both_severities_say_so(device, ras):
    ras[SEVERITY] = 0x1CFFF & ~(1 << 4)
    assert device.ras.inject("mem_data_parity") is Kind.NON_FATAL
    assert ras.driver.read16(CONFIG, ras.express + DEVSTA) & 0xF == 0x2
    assert device.ras.inject("mem_data_ecc") is Kind.FATAL
    ras.driver.write32(CONFIG, ras.aer + AER_SEVERITY, 0)
    assert device.ras.inject("mem_data_ecc") is Kind.NON_FATAL


def test_aer_may_keep_what_ras_lets_through(device, ras):
    ras.driver.write32(CONFIG, ras.aer + AER_UNCORRECTABLE_MASK, INTERNAL)
    assert device.ras.inject("ide_rx", header=[5]) is None
    assert ras[UNCORRECTABLE] == 1 << 16
    assert ras[HEADER] == 5
    assert ras.aer_status(AER_UNCORRECTABLE) == INTERNAL


def test_headers_come_one_after_the_other(device, ras):
    """Bit 9 of the control register says that several are recorded."""
    assert ras[CONTROL] & 1 << 9
    for error, header in (("poison_received", 1), ("mem_data_ecc", 2), ("poison_received", 3)):
        device.ras.inject(error, header=[header])
    assert (ras[UNCORRECTABLE], ras.pointer, ras[HEADER]) == (1 << 10 | 1 << 7, 10, 1)
    ras[UNCORRECTABLE] = 1 << 10
    assert (ras[UNCORRECTABLE], ras.pointer, ras[HEADER]) == (1 << 10 | 1 << 7, 7, 2)
    ras[UNCORRECTABLE] = 1 << 7
    assert (ras[UNCORRECTABLE], ras.pointer, ras[HEADER]) == (1 << 10, 10, 3)
    ras[UNCORRECTABLE] = 1 << 10
    assert ras[UNCORRECTABLE] == 0


def test_all_is_cleared_at_once_as_linux_does(device, ras):
    device.ras.inject("poison_received", header=[1])
    device.ras.inject("mem_data_ecc", header=[2])
    ras[UNCORRECTABLE] = 0x1CFFF
    assert ras[UNCORRECTABLE] == 0
    device.ras.inject("internal", header=[9])
    assert (ras.pointer, ras[HEADER]) == (14, 9)


def test_a_ninth_header_is_lost_and_its_error_is_not(device, ras):
    for number in range(8):
        device.ras.inject("mem_be_parity", header=[number])
    device.ras.inject("reinit_threshold", header=[99])
    for number in range(8):
        assert (ras.pointer, ras[HEADER]) == (6, number)
        ras[UNCORRECTABLE] = 1 << 6
    assert ras[UNCORRECTABLE] == 1 << 8
    assert ras[HEADER] == 7


@pytest.mark.parametrize(("kind", "kept"), [(Reset.HOT, True), (Reset.FLR, True), (Reset.COLD, False)])
def test_errors_outlive_resets_until_power_goes(device, ras, kind, kept):
    device.ras.inject("poison_received", header=[1])
    device.ras.inject("mem_data_ecc", header=[2])
    device.reset(kind)
    assert ras[UNCORRECTABLE] == (kept and 1 << 10 | 1 << 7)
    assert ras[HEADER] == (kept and 1)
    ras[UNCORRECTABLE] = 1 << 10
    assert ras[HEADER] == (kept and 2)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        ("coffee", {}, "known are cache_data_parity"),
        ("internal", {"correctable": True}, "known are cache_data_ecc"),
        ("internal", {"header": [0] * 17}, "up to 16 numbers"),
        ("internal", {"header": [1 << 32]}, "up to 16 numbers"),
        ("crc_threshold", {"correctable": True, "header": [1]}, "has none"),
    ],
)
def test_what_is_no_error(device, ras, error, options, message):
    with pytest.raises(ValueError, match=message):
        device.ras.inject(error, **options)
    assert ras[UNCORRECTABLE] == ras[CORRECTABLE] == 0
