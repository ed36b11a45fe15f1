"""What is injected is what software meets: at the mailbox's registers, in logs, in configuration space."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.inject import Death
from softcxl.device.injected_event import KINDS
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.memory import IDENTIFY_MEMORY_DEVICE
from softcxl.spec.cxl.events import DramEvent, GeneralMediaEvent, MemoryModuleEvent
from softcxl.testing.driver import Driver, Machine
from softcxl.wire import Reset

IDENTIFY = 0x4000
HEALTH = 0x4200
BAR = 2


def ring(driver: Driver, opcode: int, control: int = 1) -> None:
    """Submit a command without a payload, as drivers/cxl/pci.c does, and do not wait."""
    driver.write64(BAR, mailbox(driver) + 8, opcode)
    driver.write32(BAR, mailbox(driver) + 4, control)


def mailbox(driver: Driver) -> int:
    return driver.blocks[3][1] + driver.mailbox


def doorbell(driver: Driver) -> bool:
    return bool(driver.read32(BAR, mailbox(driver) + 4) & 1)


def answer(driver: Driver) -> tuple[int, int]:
    """Return code (status, bits 47:32) and output payload length (command, bits 36:16)."""
    status, command = (driver.read64(BAR, mailbox(driver) + at) for at in (0x10, 8))
    return status >> 32 & 0xFFFF, command >> 16 & 0x1FFFFF


# -- commands ----------------------------------------------------------------------------------------------------


def test_a_command_fails_as_often_as_asked(device: Type3, driver: Driver) -> None:
    fault = device.inject.fail(IDENTIFY_MEMORY_DEVICE, ReturnCode.RETRY_REQUIRED, times=2, vendor_status=7)
    assert str(fault) == "command 4000h fails with retry required"
    assert driver.send(HEALTH)[0] == 0
    assert driver.send(IDENTIFY) == (5, b"")
    assert driver.read64(BAR, mailbox(driver) + 0x10) >> 48 == 7
    assert driver.send(IDENTIFY) == (5, b"")
    code, payload = driver.send(IDENTIFY)
    assert (code, len(payload)) == (0, 0x45)
    assert fault.met == 2
    assert device.inject.faults == []
    assert device.cci.intercept is None, "nothing is in the way any more"


def test_a_command_that_fails_has_not_been_carried_out(device: Type3, driver: Driver) -> None:
    device.inject.fail(0x4301, ReturnCode.INTERNAL_ERROR, times=1)
    line = (0x1000).to_bytes(8, "little")
    assert driver.send(0x4301, line)[0] == 4
    assert 0x1000 not in device.poison.map


def test_every_command_until_it_is_cleared(device: Type3, driver: Driver) -> None:
    first = device.inject.fail(None, ReturnCode.BUSY)
    second = device.inject.fail(HEALTH, ReturnCode.INTERNAL_ERROR)
    assert [driver.send(opcode)[0] for opcode in (IDENTIFY, HEALTH, 0x0300)] == [6, 6, 6]
    device.inject.clear(first)
    assert [driver.send(opcode)[0] for opcode in (IDENTIFY, HEALTH, 0x0300)] == [0, 4, 0]
    assert device.inject.faults == [second]
    device.inject.clear()
    assert driver.send(HEALTH)[0] == 0


def test_chance_is_the_seeds(make: Callable[..., Type3]) -> None:
    def codes(seed: int) -> list[int]:
        device = make()
        device.inject.fail(IDENTIFY, ReturnCode.INTERNAL_ERROR, probability=0.5, seed=seed)
        driver = Driver(device)
        return [driver.send(IDENTIFY)[0] for _ in range(64)]

    assert codes(1) == codes(1)
    assert codes(1) != codes(2)
    assert 16 < codes(1).count(4) < 48, "64 draws of one half: outside of this by chance once in 20,000 seeds"


def test_a_hang_keeps_the_doorbell_until_it_is_released(
    device: Type3, driver: Driver, machine: Machine, clock: ManualClock
) -> None:
    device.inject.hang(IDENTIFY, times=1)
    ring(driver, IDENTIFY, 0b11)  # with an interrupt
    clock.advance(3600)
    assert doorbell(driver)
    ring(driver, HEALTH)
    assert doorbell(driver), "a doorbell that is set cannot be rung"
    driver.write64(BAR, mailbox(driver) + 8, IDENTIFY)
    assert machine.taken() == []
    assert device.inject.release()
    assert not doorbell(driver)
    assert answer(driver) == (0, 0x45)
    assert not device.inject.release()
    assert driver.send(HEALTH)[0] == 0


def test_the_interrupt_of_a_late_command_comes_when_it_ends(
    device: Type3, driver: Driver, machine: Machine, clock: ManualClock
) -> None:
    device.inject.delay(IDENTIFY, 1.5, times=1)
    ring(driver, IDENTIFY, 0b11)
    clock.advance(1.4)
    assert doorbell(driver)
    assert machine.taken() == []
    clock.advance(0.2)
    assert not doorbell(driver)
    assert answer(driver) == (0, 0x45)
    assert machine.taken() == [(1, 0)]


@pytest.mark.parametrize("kind", [Reset.HOT, Reset.COLD, Reset.FLR])
def test_a_reset_forgets_a_command_that_hangs(
    device: Type3, driver: Driver, clock: ManualClock, kind: Reset
) -> None:
    device.inject.delay(0x4301, 5, times=1)
    start = mailbox(driver)
    device.write(BAR, start + 0x20, (0x40).to_bytes(8, "little"))
    driver.write64(BAR, start + 8, 0x4301 | 8 << 16)
    driver.write32(BAR, start + 4, 1)
    assert doorbell(driver)
    device.reset(kind)
    assert not doorbell(driver)
    assert driver.send(IDENTIFY)[0] == 0
    clock.advance(10)
    assert 0x40 not in device.poison.map, "it was never carried out"


def test_a_door_that_cannot_wait_hears_busy(device: Type3) -> None:
    device.inject.hang(IDENTIFY)
    assert device.cci.execute(IDENTIFY).code is ReturnCode.BUSY


def test_payloads_are_garbled_shortened_and_lengthened(device: Type3, driver: Driver) -> None:
    _, right = driver.send(IDENTIFY)
    device.inject.garble(IDENTIFY, times=2, seed=3)
    garbled = [driver.send(IDENTIFY) for _ in range(2)]
    assert [(code, len(payload)) for code, payload in garbled] == [(0, 0x45), (0, 0x45)]
    assert len({right, *(payload for _, payload in garbled)}) == 3
    device.inject.shorten(IDENTIFY, 10, times=1)
    assert driver.send(IDENTIFY) == (0, right[:10])
    device.inject.shorten(IDENTIFY, 0, times=1)
    assert driver.send(IDENTIFY) == (0, b"")
    device.inject.lengthen(IDENTIFY, 5, times=1)
    code, payload = driver.send(IDENTIFY)
    assert (code, payload[:0x45], len(payload)) == (0, right, 0x4A)
    device.inject.lengthen(IDENTIFY, 4096, times=1)
    assert len(driver.send(IDENTIFY)[1]) == 4096, "as much as there is room"
    assert driver.send(IDENTIFY) == (0, right)


def test_a_refused_command_is_not_garbled(device: Type3, driver: Driver) -> None:
    device.inject.garble(None)
    assert driver.send(0x4001) == (3, b"")


def test_a_watcher_sees_each_command_with_the_answer_that_software_gets(
    device: Type3, driver: Driver, clock: ManualClock
) -> None:
    seen: list[tuple[int, int]] = []
    end = device.inject.watch(lambda opcode, payload, reply: seen.append((opcode, reply.code)))
    driver.send(IDENTIFY)
    device.inject.delay(HEALTH, 1, times=1)
    ring(driver, HEALTH)
    assert seen == [(IDENTIFY, 0)]
    clock.advance(1)
    assert seen == [(IDENTIFY, 0), (HEALTH, 0)]
    end()
    end()
    driver.send(IDENTIFY)
    assert len(seen) == 2
    assert device.cci.intercept is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda i: i.fail(0x10000, ReturnCode.BUSY), "opcode 0x10000: 0000h to FFFFh"),
        (lambda i: i.fail(-1, ReturnCode.BUSY), "opcode -0x1"),
        (lambda i: i.fail(IDENTIFY, 0x7777), "not a valid ReturnCode"),
        (lambda i: i.hang(IDENTIFY, times=0), "times=0: 1 or more"),
        (lambda i: i.hang(IDENTIFY, probability=0), "over 0 and at most 1"),
        (lambda i: i.hang(IDENTIFY, probability=1.5), "over 0 and at most 1"),
        (lambda i: i.delay(IDENTIFY, 0), "over 0 and finite"),
        (lambda i: i.delay(IDENTIFY, float("nan")), "over 0 and finite"),
        (lambda i: i.delay(IDENTIFY, float("inf")), "over 0 and finite"),
        (lambda i: i.shorten(IDENTIFY, -1), "0 or more"),
        (lambda i: i.lengthen(IDENTIFY, 0), "1 to 4096"),
        (lambda i: i.lengthen(IDENTIFY, 4097), "1 to 4096"),
        (lambda i: i.die("of boredom"), "not a valid Death"),
        (lambda i: i.poison(512 << 20), "the device has 0x20000000 bytes"),
        (lambda i: i.poison(-64), "the device has"),
        (lambda i: i.poison(0, 0), "0 bytes at DPA"),
        (lambda i: i.health(warmth=1), "health has no 'warmth'; it has health_status"),
        (lambda i: i.health(device_temperature=40000), "health: "),
        (lambda i: i.health(life_used="much"), "health: "),
        (
            lambda i: i.event(EventLog.FATAL, "earthquake"),
            "event 'earthquake': there are general-media, dram",
        ),
        (lambda i: i.event(EventLog.FATAL, "dram", colour=1), "a dram event has no 'colour'; it has .*dpa"),
        (lambda i: i.event(EventLog.FATAL, "dram", row=1 << 24), "dram event: "),
        (lambda i: i.event(EventLog.FATAL, "dram", row="high"), "row cannot be 'high'"),
        (lambda i: i.event(EventLog.FATAL, "dram", dpa=1 << 40), "the device has 0x20000000 bytes"),
        (lambda i: i.event(EventLog.FATAL, "vendor", data=bytes(81)), "vendor event: "),
        (lambda i: i.event(EventLog.FATAL, "vendor", identifier="me"), "identifier cannot be 'me'"),
        (lambda i: i.event(EventLog.DYNAMIC_CAPACITY, "dram"), "the device has the logs"),
        (lambda i: i.error("gremlins"), "known are"),
        (lambda i: i.error("gremlins", protocol="pcie"), "known are"),
        (lambda i: i.error("internal", protocol="usb"), "there are cxl and pcie"),
        (lambda i: i.error("internal", protocol="pcie", header=[1] * 5), "up to 4 numbers of 32 bits"),
        (lambda i: i.correct(0, 0), "0 corrected errors"),
    ],
)
def test_input_that_cannot_be_is_a_sentence_and_changes_nothing(
    device: Type3, driver: Driver, call: Callable[[object], object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        call(device.inject)
    assert device.cci.intercept is None
    assert not any(log.records for log in device.events.logs.values())
    assert len(device.poison.map) == 0
    assert driver.send(IDENTIFY)[0] == 0


# -- media, events, health -----------------------------------------------------------------------------------------


def test_poison_over_lines(device: Type3, driver: Driver) -> None:
    assert device.inject.poison(0x1030, 0x60) == 3, "lines 1000h, 1040h and 1080h are touched"
    assert device.inject.poison(0x1080, 64) == 0
    request = (0).to_bytes(8, "little") + (0x2000 // 64).to_bytes(8, "little")
    code, payload = driver.send(0x4300, request)
    assert (code, int.from_bytes(payload[10:12], "little")) == (0, 1)
    assert int.from_bytes(payload[0x20:0x28], "little") == 0x1000 | 2, "internal, as one stretch"
    assert int.from_bytes(payload[0x28:0x2C], "little") == 3
    assert len(device.events.logs[EventLog.FAILURE].records) == 3
    assert device.inject.clear_poison(0x1000, 0x2000) == 3


def test_lines_that_go_bad_unnoticed(device: Type3) -> None:
    assert device.inject.spoil(0x1030, 0x60) == 3
    assert device.inject.spoil(0x1080, 64) == 0
    assert len(device.poison.map) == 0
    assert device.poison.met(0x1000, 0x1000) == 0x1000
    with pytest.raises(ValueError, match="the device has"):
        device.inject.spoil(0, 1 << 40)


def test_media_that_decay(device: Type3, clock: ManualClock) -> None:
    fault = device.inject.decay(0x1000, every=2, endurance=1)
    clock.advance(2)
    assert device.health.info.corrected_volatile_error_count == 1
    clock.advance(2)
    assert fault.worn
    assert device.poison.met(0x1000, 64) == 0x1000
    device.faults.mend()
    assert device.clear_poison(0x1000) == 1
    assert device.poison.met(0x1000, 64) is None


def test_events_by_name(device: Type3) -> None:
    inject = device.inject
    assert inject.event(
        EventLog.WARNING, "dram", dpa=0x10000040, row=7, bank=2, permanent_condition=True, maintenance_class=2
    )
    [held] = device.events.logs[EventLog.WARNING].records
    event = DramEvent.unpack(held.pack())
    assert (int(event.address), event.row, event.bank) == (0x10000040, 7, 2), "persistent: bit 0 is clear"
    assert int(event.validity) == 1 << 4 | 1 << 5, "bank and row are valid (CXL 3.2 Table 8-58)"
    assert int(event.header.flags) == 1 << 2 | 1, "permanent, of the warning log"
    assert event.header.maintenance_class == 2
    inject.health(device_temperature=-5)
    assert inject.event(EventLog.FATAL, "memory-module", event_type=3, life_used=90)
    [held] = device.events.logs[EventLog.FATAL].records
    module = MemoryModuleEvent.unpack(held.pack())
    assert (module.health.device_temperature, module.health.life_used, module.event_type) == (-5, 90, 3)
    name = UUID("5e6f7a8b-0102-4304-8506-0708090a0b0c")
    assert inject.event(EventLog.INFORMATIONAL, "vendor", identifier=str(name), data=b"hello")
    [held] = device.events.logs[EventLog.INFORMATIONAL].records
    assert (held.header.identifier, held.data[:6]) == (name, b"hello\0")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_event_is_128_bytes_with_its_identifier(
    device: Type3, driver: Driver, kind: str
) -> None:
    assert device.inject.event(EventLog.FAILURE, kind)
    code, payload = driver.send(0x0100, b"\x02")
    assert (code, len(payload)) == (0, 0x20 + 0x80)
    assert payload[0x20:0x30] == KINDS[kind][1].bytes


def test_a_volatile_address_says_so(device: Type3) -> None:
    device.inject.event(EventLog.FAILURE, "general-media", dpa=0x40)
    [held] = device.events.logs[EventLog.FAILURE].records
    assert int(GeneralMediaEvent.unpack(held.pack()).address) == 0x41


def test_health_and_temperature(device: Type3, driver: Driver) -> None:
    device.inject.health(device_temperature=95, life_used=80)
    _, payload = driver.send(HEALTH)
    assert payload[3] == 80
    assert int.from_bytes(payload[4:6], "little") == 95
    assert payload[2] & 0b1111 == 0b1010, "both are critical"


# -- errors, death, link -------------------------------------------------------------------------------------------


def test_a_protocol_error_is_logged(device: Type3, driver: Driver) -> None:
    device.inject.error("completion_timeout", protocol="pcie", header=[1, 2, 3, 4])
    device.inject.error("receiver", protocol="pcie", correctable=True)
    aer = next(offset for kind, offset in driver.extended_capabilities() if kind == 1)
    assert driver.read32(7, aer + 4) == 1 << 14, "PCI_ERR_UNC_COMP_TIME of linux/pci_regs.h"
    assert driver.read32(7, aer + 0x10) == 1, "PCI_ERR_COR_RCVR"


def test_a_cxl_protocol_error_is_logged(device: Type3, driver: Driver) -> None:
    device.inject.error("mem_data_ecc")
    bar, ras = driver.component_capability(2)
    assert driver.read32(bar, ras) == 1 << 7, "CXL_RAS_UC_MEM_DATA_ECC of drivers/cxl/core/trace.h"


def test_corrected_errors_are_counted_and_logged_as_one(device: Type3) -> None:
    device.inject.correct(0x2000, 3)
    assert device.health.info.corrected_volatile_error_count == 3
    assert sum(len(log.records) for log in device.events.logs.values()) == 1


def test_a_silent_device_reads_as_ones_and_comes_back_cold(
    device: Type3, driver: Driver, machine: Machine
) -> None:
    device.inject.poison(0)
    device.inject.die(Death.SILENT)
    assert driver.read32(7, 0) == 0xFFFFFFFF
    assert driver.read64(BAR, mailbox(driver) + 8) == (1 << 64) - 1
    mapped = next(region for region in device.regions() if region and region.mappable)
    ((start, size),) = mapped.mappable
    assert device.device_registers.file.peek(start, size) == b"\xff" * size, "what a guest has mapped, too"
    driver.write32(7, 4, 0x6)
    device.inject.event(EventLog.FATAL, "dram")
    assert machine.taken() == []
    device.inject.link_up()
    assert device.silent, "its link is not what is wrong with it"
    device.inject.revive()
    assert driver.read32(7, 0) == 0x00011E98
    assert driver.read16(7, 4) == 0, "the write was lost, and a reset has been"
    assert driver.send(IDENTIFY)[0] == 0
    assert not device.events.logs[EventLog.FATAL].records


def test_firmware_that_stops(device: Type3, driver: Driver, clock: ManualClock) -> None:
    device.inject.die("firmware")
    status = driver.read64(BAR, driver.blocks[3][1] + driver.capabilities[0x4000][0])
    assert status & 0b10011 == 0b00011, "fatal, halted, mailbox not ready"
    ring(driver, IDENTIFY)
    clock.advance(100)
    device.inject.release()
    device.inject.clear()
    assert doorbell(driver)
    device.reset(Reset.FLR)
    ring(driver, IDENTIFY)
    assert doorbell(driver), "a function-level reset does not start it again"
    device.reset(Reset.HOT)
    assert driver.send(IDENTIFY)[0] == 0
    assert driver.read64(BAR, driver.blocks[3][1] + driver.capabilities[0x4000][0]) & 0b10011 == 0b10000
    assert device.cci.intercept is None


def test_media_that_fail(device: Type3, driver: Driver) -> None:
    device.inject.die("media")
    assert driver.read64(BAR, driver.blocks[3][1] + driver.capabilities[0x4000][0]) >> 2 & 3 == 2
    assert driver.send(0x4301, bytes(8))[0] == 7, "media disabled (CXL 3.1 Table 8-34)"
    assert driver.send(IDENTIFY)[0] == 0
    device.inject.revive()
    assert driver.send(0x4301, bytes(8))[0] == 0


def test_a_link_that_nobody_here_has_the_other_end_of(device: Type3, driver: Driver) -> None:
    device.inject.poison(0x40)
    device.inject.link_down()
    device.inject.link_down()
    assert driver.read32(7, 0) == 0xFFFFFFFF
    device.inject.link_up()
    assert driver.read32(7, 0) == 0x00011E98
    assert 0x40 in device.poison.map, "a hot reset keeps poison"
    device.inject.link_up()
