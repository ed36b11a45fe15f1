"""Interrupts reach the eventfds that the client gave, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from softcxl.testing.vfio_client import Client
from softcxl.transport import Bus
from softcxl.transport.vfio_user import Door
from tests.transport.conftest import open_files
from tests.transport.ports import ScratchPort

INTX, MSI, MSIX, ERR, REQ = range(5)


def signals(event: int) -> int:
    """How often an eventfd was signalled since the last look."""
    try:
        return os.eventfd_read(event)
    except BlockingIOError:
        return 0


@pytest.fixture(params=[os.EFD_NONBLOCK, 0], ids=["as QEMU's", "blocking"])
def events(request: pytest.FixtureRequest) -> Iterator[list[int]]:
    events = [os.eventfd(0, request.param) for _ in range(4)]
    yield events
    for event in events:
        os.close(event)


@pytest.fixture
def bus(client: Client, port: ScratchPort) -> Bus:
    assert port.bus is not None
    return port.bus


def looked(events: list[int]) -> list[int]:
    for event in events:
        os.set_blocking(event, False)
    return [signals(event) for event in events]


def test_each_vector_has_its_event(client: Client, bus: Bus, events: list[int], door: Door) -> None:
    client.set_irqs(MSI, 0, 4, events=events)
    for vector in (1, 3, 3):
        bus.interrupt(MSI, vector)
    assert looked(events) == [0, 1, 0, 2]
    assert door.traffic.interrupts == 3


def test_an_interrupt_that_nobody_set_up_is_counted(
    client: Client, bus: Bus, events: list[int], door: Door
) -> None:
    client.set_irqs(MSI, 1, 1, events=events[:1])
    for kind, vector in ((MSI, 0), (MSI, 2), (MSI, 99), (MSIX, 1), (INTX, 0), (77, 1)):
        bus.interrupt(kind, vector)
    assert looked(events) == [0] * 4
    assert (door.traffic.interrupts, door.traffic.interrupts_dropped) == (0, 6)


def test_no_descriptors_unassign(client: Client, bus: Bus, events: list[int]) -> None:
    client.set_irqs(MSI, 0, 4, events=events)
    client.set_irqs(MSI, 1, 2, events=[])
    for vector in range(4):
        bus.interrupt(MSI, vector)
    assert looked(events) == [1, 0, 0, 1]


def test_unassigning_what_was_never_assigned(client: Client, bus: Bus) -> None:
    client.set_irqs(MSIX, 0, 32, events=[])
    bus.interrupt(MSIX, 31)


def test_disable_all_of_a_type(client: Client, bus: Bus, events: list[int]) -> None:
    client.set_irqs(MSI, 0, 2, events=events[:2])
    client.set_irqs(REQ, 0, 1, events=events[2:3])
    client.set_irqs(MSI, 0, 0)
    for kind, vector in ((MSI, 0), (MSI, 1), (REQ, 0)):
        bus.interrupt(kind, vector)
    assert looked(events) == [0, 0, 1, 0]


def test_a_new_event_replaces_the_old_one(client: Client, bus: Bus, events: list[int]) -> None:
    held = open_files()
    for event in events:
        client.set_irqs(MSI, 0, 1, events=[event])
    bus.interrupt(MSI, 0)
    assert looked(events) == [0, 0, 0, 1]
    assert open_files() == held + 1


def test_the_client_triggers_an_interrupt_itself(client: Client, events: list[int]) -> None:
    client.set_irqs(MSI, 0, 4, events=events)
    client.set_irqs(MSI, 0, 4)
    client.set_irqs(MSI, 0, 4, booleans=[True, False, False, True])
    assert looked(events) == [2, 1, 1, 2]


def test_a_masked_vector_fires_once_when_unmasked(client: Client, bus: Bus, events: list[int]) -> None:
    client.set_irqs(MSI, 0, 2, events=events[:2])
    client.set_irqs(MSI, 0, 2, action="mask")
    for vector in (0, 0, 0):
        bus.interrupt(MSI, vector)
    assert looked(events) == [0, 0, 0, 0]
    client.set_irqs(MSI, 0, 2, action="unmask", booleans=[False, True])
    assert looked(events) == [0, 0, 0, 0]
    client.set_irqs(MSI, 0, 2, action="unmask")
    assert looked(events) == [1, 0, 0, 0]


def test_mask_and_unmask_events(client: Client, events: list[int]) -> None:
    client.set_irqs(MSI, 0, 1, action="mask", events=events[:1])
    client.set_irqs(MSI, 0, 1, action="unmask", events=events[1:2])
    for _ in range(2):  # the second time nothing changes
        client.set_irqs(MSI, 0, 1, action="mask")
    assert looked(events) == [1, 0, 0, 0]
    client.set_irqs(MSI, 0, 1, action="unmask")
    assert looked(events) == [0, 1, 0, 0]


def test_intx_masks_itself(client: Client, bus: Bus, events: list[int]) -> None:
    client.set_irqs(INTX, 0, 1, events=events[:1])
    bus.interrupt(INTX, 0)
    bus.interrupt(INTX, 0)
    assert looked(events) == [1, 0, 0, 0]
    client.set_irqs(INTX, 0, 1, action="unmask")  # the second one comes now
    assert looked(events) == [1, 0, 0, 0]
    client.set_irqs(INTX, 0, 1, action="unmask")
    assert looked(events) == [0, 0, 0, 0]
    bus.interrupt(INTX, 0)
    assert looked(events) == [1, 0, 0, 0]


def test_intx_does_not_mask_itself_where_the_kernel_unmasks_it(
    client: Client, bus: Bus, events: list[int]
) -> None:
    client.set_irqs(INTX, 0, 1, events=events[:1])
    client.set_irqs(INTX, 0, 1, action="unmask", events=events[1:2])
    bus.interrupt(INTX, 0)
    bus.interrupt(INTX, 0)
    assert looked(events) == [2, 0, 0, 0]


def test_a_full_counter_blocks_nobody(client: Client, bus: Bus, events: list[int]) -> None:
    client.set_irqs(MSI, 0, 1, events=events[:1])
    os.eventfd_write(events[0], (1 << 64) - 2)
    bus.interrupt(MSI, 0)
    assert looked(events)[0] == (1 << 64) - 2


def test_a_client_that_goes_takes_its_events_along(
    port: ScratchPort, door: Door, client: Client, bus: Bus, events: list[int]
) -> None:
    held = open_files()
    client.set_irqs(MSI, 0, 4, events=events)
    assert open_files() == held + 4
    client.close()
    assert port.detached.wait(60)
    with Client(door.path) as next_one:
        next_one.negotiate()
        bus.interrupt(MSI, 0)
        assert port.bus is not None
        port.bus.interrupt(MSI, 0)
        assert looked(events) == [0] * 4
