"""Compliance mode over DOE: requests by their bytes, as Avery's cxl_compliance.h for QEMU lays them out."""

import struct

import pytest

from softcxl.fabric.build import Fabric
from softcxl.switch.errors import PoisonError
from softcxl.testing.driver import CONFIG, Driver
from softcxl.wire import Reset

CXL, COMPLIANCE, CDAT = 0x1E98, 0, 2
SUCCESS, NOT_AUTHORIZED, UNKNOWN, UNSUPPORTED, BUSY, NOT_INITIALIZED = 0, 1, 2, 3, 5, 6
CACHE, MEM = 1, 2
TOPOLOGY = """
devices: {mem0: {volatile: 256MiB, compliance: true}}
hosts: {alpha: {bridges: {hb0: {ports: [mem0]}}, windows: [{size: 256MiB, targets: [hb0]}]}}
"""


class Doe:
    def __init__(self, device):
        self.driver = Driver(device)
        self.at = next(at for ident, at in self.driver.extended_capabilities() if ident == 0x2E)

    def ask(self, body, kind=COMPLIANCE, vendor=CXL):
        """The response's body, or None where there is none."""
        body += bytes(-len(body) % 4)
        dwords = struct.unpack(
            f"<{2 + len(body) // 4}I", struct.pack("<II", kind << 16 | vendor, 2 + len(body) // 4) + body
        )
        for dword in dwords:
            self.driver.write32(CONFIG, self.at + 0x10, dword)
        self.driver.write32(CONFIG, self.at + 0x08, 1 << 31)
        taken = []
        while self.driver.read32(CONFIG, self.at + 0x0C) >> 31:
            taken.append(self.driver.read32(CONFIG, self.at + 0x14))
            self.driver.write32(CONFIG, self.at + 0x14, 0)
        return struct.pack(f"<{len(taken)}I", *taken)[8:] if taken else None

    def status(self, code, *arguments):
        """What becomes of a request."""
        answer = self.ask(bytes([code, 1, 0, 0, *arguments]))
        assert answer[:3] == bytes([code, 1, 12])  # version, and a length with the object's header
        return answer[3]

    def under_way(self):
        answer = self.ask(bytes([1, 1, 0, 0]))
        assert answer[:3] == bytes([1, 1, 0x12])
        return struct.unpack_from("<I", answer, 3)[0]


@pytest.fixture
def device(make):
    device = make(compliance=True)
    device.dvsec.control.mem_enable = True
    return device


@pytest.fixture
def doe(device):
    return Doe(device)


def discovered(doe):
    found, index = [], 0
    while True:
        (answer,) = struct.unpack("<I", doe.ask(bytes([index, 0, 0, 0]), kind=0, vendor=1))
        found.append((answer & 0xFFFF, answer >> 16 & 0xFF))
        index = answer >> 24
        if not index:
            return found


def test_it_is_discovered_where_it_is_asked_for(make, doe):
    assert discovered(doe) == [(1, 0), (CXL, CDAT), (CXL, COMPLIANCE)]
    plain = Doe(make())
    assert discovered(plain) == [(1, 0), (CXL, CDAT)]
    assert plain.ask(bytes(4)) is None


def test_capabilities(doe):
    able = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 6 | 1 << 12
    assert doe.ask(bytes([0, 1, 0, 0])) == struct.pack("<BBBBQQ", 0, 1, 0x1C, SUCCESS, able, able)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [(3, 56), (4, 36), (5, 6), (7, 2), (8, 1), (9, 1), (10, 3), (11, 2), (13, 4), (14, 4), (15, 1)],
)
def test_what_a_memory_device_cannot(doe, code, arguments):
    assert doe.status(code, *bytes(arguments)) == UNSUPPORTED
    assert doe.under_way() == 0


def test_bad_requests(doe):
    assert doe.status(0x10) == UNKNOWN
    assert doe.status(0xFF, 1, 2, 3, 4) == UNKNOWN
    for body in (b"", bytes([6, 1, 0, 0]), bytes([0, 1, 0, 0, 0]), bytes([6, 1, 0, 0, MEM, *bytes(4)])):
        assert doe.ask(body) is None


def test_poison_goes_out_with_the_next_data():
    with Fabric.loads(TOPOLOGY) as fabric:
        region = fabric.hosts["alpha"].boot().create_region()
        machine, device = fabric.hosts["alpha"].machine, fabric.devices["mem0"]
        doe = Doe(device)
        machine.store(region.hpa, b"good" * 16)
        assert doe.status(6, MEM) == SUCCESS
        assert doe.under_way() == 1 << 6
        assert doe.status(6, MEM) == BUSY
        with pytest.raises(PoisonError):
            machine.load(region.hpa, 4)
        assert machine.load(region.hpa, 4) == b"good"
        assert doe.under_way() == 0
        assert len(device.poison.map) == 0


def test_poison_of_what_is_not_there(device, doe):
    assert doe.status(6, CACHE) == UNSUPPORTED
    device.dvsec.control.mem_enable = False
    assert doe.status(6, MEM) == NOT_INITIALIZED
    assert doe.under_way() == 0


@pytest.mark.parametrize("halt", ["request", Reset.FLR, Reset.HOT, Reset.CXL])
def test_what_is_under_way_halts(device, doe, halt):
    assert doe.status(6, MEM) == SUCCESS
    if halt == "request":
        assert doe.status(2) == SUCCESS
    else:
        device.reset(halt)
    assert doe.under_way() == 0
    assert not device.poison.any


def test_viral(device, doe):
    assert doe.status(12, MEM) == NOT_AUTHORIZED
    assert not device.viral
    device.dvsec.control.viral_enable = True
    assert doe.status(12, CACHE) == UNSUPPORTED
    assert doe.status(12, MEM) == SUCCESS
    assert device.viral
    assert device.dvsec.status.viral
