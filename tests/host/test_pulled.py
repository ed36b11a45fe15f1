"""Devices that go while they are used: an access ends in the right bytes, or in an error that names what is gone."""

import threading

import numpy as np
import pytest

import softcxl
from softcxl.switch.errors import DeviceFault, LinkDown, ViralError

TEXT = """
devices: {m0: {volatile: 256MiB}, m1: {volatile: 256MiB}, m2: {volatile: 256MiB}, m3: {volatile: 256MiB}}
switches: {s0: {ports: [m0, m1]}}
hosts:
  alpha:
    bridges: {hb0: {ports: [s0, m2]}, hb1: {ports: [m3]}}
    windows: [{size: 1GiB, targets: [hb0]}, {size: 1GiB, targets: [hb1]}]
"""


@pytest.fixture
def fabric():
    with softcxl.Fabric.loads(TEXT) as fabric:
        yield fabric


@pytest.fixture
def host(fabric):
    return fabric.hosts["alpha"]


@pytest.fixture
def region(host):
    region = host.boot().create_region(["mem0", "mem1"], type="ram", granularity=1024)
    region.write(0, b"\xa5" * (1 << 20))
    return region


@pytest.fixture
def port(host):
    """The one that m1 is below."""
    return host.machine.bridges[0].ports[0].occupant.ports[1]


def test_a_load_says_where_it_ended(region, port):
    port.remove()
    assert region.load(0, 4) == b"\xa5" * 4
    with pytest.raises(
        LinkDown,
        match=r"HPA 0x100000400: nothing .* below s0 port 1; offset 0x400 of region0, position 1, mem1 \(0000:",
    ):
        region.load(0x400, 4)
    with pytest.raises(LinkDown, match="offset 0x400 of region0, position 1, mem1"):
        region.store(0x3FC, bytes(8))
    with pytest.raises(LinkDown, match="offset 0x400 of region0, position 1, mem1"):
        region.read(0, 4096)
    with pytest.raises(LinkDown, match="position 1, mem1"):
        region.write(0, bytes(4096))


@pytest.mark.parametrize("writes", [False, True])
def test_pulled_between_mapping_and_copy(region, port, host, monkeypatch, writes):
    """The copy was made of bytes that were gone by then; it is not believed."""
    machine, view = host.machine, host.machine.view

    def pulled(hpa, size):
        found = view(hpa, size)
        if port.occupant is not None:
            port.remove()
            assert not np.array_equal(
                found, np.full(size, 0xA5, np.uint8)
            )  # its bytes have gone with its power
        return found

    monkeypatch.setattr(machine, "view", pulled)
    with pytest.raises(LinkDown, match="offset 0x400 of region0, position 1, mem1"):
        region.write(0, bytes(8192)) if writes else region.read(0, 8192)


def test_another_device_that_goes_disturbs_nobody(region, host, monkeypatch):
    machine, view, other = host.machine, host.machine.view, host.machine.bridges[1].ports[0]
    calls = []

    def pulled(hpa, size):
        calls.append(hpa)
        if other.occupant is not None:
            other.remove()
        return view(hpa, size)

    monkeypatch.setattr(machine, "view", pulled)
    assert region.read(0, 8192) == b"\xa5" * 8192
    assert len(calls) == 2


def test_pulled_by_another_thread(region, port):
    """Readers see all of it, or an error; never part of it."""
    started, size = threading.Barrier(3), 1 << 20
    expected, wrong, errors = b"\xa5" * size, [], []

    def reader():
        started.wait()
        while True:
            try:
                if region.read(0, size) != expected:
                    wrong.append("bytes")
                    return
            except LinkDown as error:
                errors.append(str(error))
                return

    threads = [threading.Thread(target=reader) for _ in range(2)]
    for thread in threads:
        thread.start()
    started.wait()
    port.remove()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(errors) == 2
    assert all("of region0, position 1, mem1 (0000:" in one for one in errors)


def test_viral_names_the_region_too(region, fabric, host):
    host.machine.enable_viral()
    fabric.devices["m1"].enter_viral()
    with pytest.raises(ViralError, match=r"m0 is viral.*; offset 0x0 of region0, position 0, mem0"):
        region.read(0, 64)
    with pytest.raises(ViralError, match="position 1, mem1"):
        region.write(0x400, bytes(64))


def test_a_region_over_a_dead_device(fabric, host):
    """A device that is not there, or whose media are dead, is not made part of a region."""
    system = host.boot()
    fabric.devices["m2"].media_disabled = True
    region = system.create_region(["mem2"], type="ram")
    with pytest.raises(DeviceFault, match="media of m2 are disabled; offset 0x0 of region0"):
        region.read(0, 64)
    host.machine.bridges[1].ports[0].remove()
    with pytest.raises(ValueError, match=r"mem3 \(0000:\S+\) does not answer any more"):
        system.create_region(["mem3"], type="ram", decoder=1)
