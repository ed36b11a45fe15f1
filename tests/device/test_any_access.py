"""Software may do anything: any access of any size anywhere is survived, and the device works afterwards."""

import random

import pytest

from softcxl.testing.driver import CONFIG, Driver

ACCESSES = 4000


@pytest.mark.parametrize("seed", range(6))
def test_any_access(make, clock, caplog, seed):
    numbers = random.Random(seed)
    device = make(interrupts=numbers.choice(("msi", "msix")), decoders=numbers.choice((1, 4, 16)))
    sizes = {index: region.size for index, region in enumerate(device.regions()) if region}
    places = [(region, offset) for region, file in device._files.items() for offset in file.registers]
    for _ in range(ACCESSES):
        if numbers.random() < 0.9:
            region, offset = numbers.choice(places)
            offset += numbers.choice((0, 0, 0, 0, 1, 2, 3, -1, -4))
        else:
            region = numbers.choice(list(sizes))
            offset = numbers.randrange(sizes[region])
        size = numbers.choice((1, 2, 4, 4, 4, 8, 8, 16, 64))
        offset = max(0, min(offset, sizes[region] - size))
        if numbers.random() < 0.3:
            assert len(device.read(region, offset, size)) == size
            continue
        data = numbers.choice(
            (
                numbers.randbytes(size),
                b"\xff" * size,
                bytes(size),
                bytes([1 << numbers.randrange(8)]).ljust(size, b"\0"),
            )
        )
        device.write(region, offset, data)
        if numbers.random() < 0.05:
            clock.advance(numbers.random())
    assert caplog.records == []
    device.reset()
    driver = Driver(device)
    assert driver.send(0x4000)[0] == 0
    assert driver.commit(0, 1 << 32, 256 << 20)
    assert driver.read16(CONFIG, 0) == 0x1E98
    assert sum(driver.cdat()) % 256 == 0
