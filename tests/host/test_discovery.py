"""Regions of firmware, or of the system before: found again, and what does not fit together said."""

import pytest

from softcxl.host.registers import HdmRegisters, Setting
from softcxl.host.system import System
from tests.host.fake import GIB, machine, switch


@pytest.fixture
def two_levels(made):
    a, b, c, d = made(4, volatile=GIB >> 1)
    return machine([switch(a, b)], [c, d], windows=[{"targets": (0, 1), "size": 4 * GIB}])


def test_a_second_system_finds_what_the_first_made(two_levels):
    first = System(two_levels)
    given = first.create_region(["mem1", "mem3", "mem0", "mem2"], size=GIB)
    given.write(4096, b"still here")
    again = System(two_levels)
    assert again.problems == []
    (found,) = again.regions.values()
    assert found.automatic
    assert found.enabled
    assert [one.serial for one in found.memdevs if one] == [one.serial for one in given.memdevs if one]
    for name in ("name", "type", "hpa", "size", "ways", "granularity"):
        assert getattr(found, name) == getattr(given, name)
    assert found.read(4096, 10) == b"still here"
    # and what it has is not given out again
    assert again.create_region(["mem0", "mem2"], size=GIB >> 1).hpa == given.hpa + GIB
    again.destroy_region("region1")
    again.destroy_region("region0")
    assert System(two_levels).regions == {}


def _broken(system, change):
    region = system.create_region(["mem0", "mem2", "mem1", "mem3"], size=GIB)
    change(system, region)


def _set(decoder, **changes):
    setting = decoder.setting
    kept = {name: getattr(setting, name) for name in ("base", "size", "ways", "granularity", "target")}
    decoder.hdm.reset(decoder.number)
    decoder.hdm.commit(decoder.number, Setting(**{**kept, **changes}))


def _port(name):
    return lambda region: next(one for port, one in region.ports.items() if port.name == name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s, r: r.targets[1].hdm.reset(0), "3 of 4 devices are here"),
        (
            lambda s, r: _set(r.targets[2], granularity=512),
            "mem0 has 4 ways at 256 of ram, mem1 has 4 at 512 of ram",
        ),
        (lambda s, r: _port("port1")(r).hdm.reset(0), "no decoder of port1 \\(pci0000:0c\\) has the range"),
        (lambda s, r: _set(_port("port2")(r), target=0x0000), "goes to ports 0, 0, and mem3 is behind 1"),
        (lambda s, r: _set(_port("port2")(r), granularity=1024), "2 ways at 1024; 2 at 512 are due"),
        (lambda s, r: _set(_port("port3")(r), ways=1, target=1), "goes to ports 1, and mem0 is behind 0"),
    ],
)
def test_what_does_not_fit_is_left_alone_and_said(two_levels, change, reason):
    _broken(System(two_levels), change)
    system = System(two_levels)
    assert system.regions == {}
    assert len(system.problems) == 1
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(system.problems[0])


def test_outside_every_window(made):
    (device,) = made(1)
    device.decoders.host = type("Nowhere", (), {"commit": lambda *_: None, "release": lambda *_: None})()
    fake = machine([device], windows=[{}])
    device.decoders.host = type("Nowhere", (), {"commit": lambda *_: None, "release": lambda *_: None})()
    device.decoders.program(0, hpa=64 * GIB, size=GIB >> 2, ways=1, granularity=256)
    system = System(fake)
    assert "no window has 0x1000000000 to 0x100fffffff" in system.problems[0]


def test_reserved_values_in_a_committed_decoder(made):
    (device,) = made(1)
    fake = machine([device], windows=[{}])
    System(fake).create_region()
    fake.bridges[0].component.data[0x10A0] |= 0x70  # seven: reserved
    assert isinstance(System(fake).problems[0], str)
    assert "interleave ways encoding 7" in System(fake).problems[0]


def test_settings_read_back(made):
    (device,) = made(1)
    fake = machine([device], windows=[{}])
    region = System(fake).create_region()
    (decoder,) = region.ports.values()
    assert isinstance(decoder.hdm, HdmRegisters)
    assert decoder.hdm.read(0) == decoder.setting
    (target,) = region.targets
    assert target is not None
    assert target.hdm.read(0) == target.setting
