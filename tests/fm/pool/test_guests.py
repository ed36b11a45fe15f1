"""A pool's server as the devices see it by which guests come."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from softcxl.fm.pool.guests import Guests
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import layout
from softcxl.pool.protocol import PROTOCOL, Hello, ListQuery, Opcode, Status, Welcome
from tests.fm.pool.memories import PLAN, FakeSource


@dataclass(frozen=True)
class Visitor:
    device: str
    host: str


ALPHA, BETA = Visitor("door", "alpha"), Visitor("gate", "beta")


@pytest.fixture
def server() -> Iterator[PoolServer]:
    arena = os.memfd_create("arena", os.MFD_CLOEXEC)
    os.truncate(arena, PLAN.size)
    with PoolServer(arena, [FakeSource("mem0"), FakeSource("mem1")], plan=PLAN) as one:
        yield one
    os.close(arena)


@pytest.fixture
def guests(server: PoolServer) -> Guests:
    return Guests(server)


def hello(place: Welcome | None = None) -> bytes:
    return Hello(
        protocol=PROTOCOL,
        pid=1,
        slot=place.slot if place else 0,
        epoch=place.epoch if place else 0,
        token=place.token if place else b"",
        lease=0,
        name=b"program",
        host=b"what it says itself",
    ).pack()


def come(guests: Guests, visitor: Visitor, place: Welcome | None = None) -> Welcome:
    status, answer = guests.ask(visitor, 0, Opcode.HELLO, hello(place))
    assert status == Status.OK, answer
    return Welcome.unpack(answer)


def test_memories_are_the_arena_and_the_sources(server: PoolServer, guests: Guests) -> None:
    found = guests.memories()
    assert [(one.source, one.name, one.offset) for one in found] == [
        (0, "arena", 0),
        (1, "mem0", 0),
        (2, "mem1", 0),
    ]
    assert found[0].size == PLAN.size


def test_a_program_is_of_the_host_that_the_device_says(server: PoolServer, guests: Guests) -> None:
    place = come(guests, ALPHA)
    record = server.directory.slot(place.slot)
    assert layout.decode_name(record.host) == "alpha"
    assert layout.decode_name(record.name) == "program"
    assert (record.flags & 1, record.pid) == (1, 0)
    assert come(guests, ALPHA, place).slot == place.slot  # again


def test_nobody_speaks_for_slots_of_another_guest(server: PoolServer, guests: Guests) -> None:
    place = come(guests, ALPHA)
    for opcode, request in ((Opcode.LIST, ListQuery(start=0).pack()), (Opcode.GOODBYE, b"")):
        assert guests.ask(BETA, place.slot, opcode, request) == (
            Status.GONE,
            f"slot {place.slot} is none of this guest's".encode(),
        )
    assert guests.ask(BETA, 0, Opcode.HELLO, hello(place))[0] == Status.GONE
    assert guests.ask(ALPHA, place.slot, Opcode.LIST, ListQuery(start=0).pack())[0] == Status.OK


def test_a_guest_that_goes_takes_its_own_programs_along(server: PoolServer, guests: Guests) -> None:
    first, second, other = come(guests, ALPHA), come(guests, ALPHA), come(guests, BETA)
    guests.gone(ALPHA)
    assert {first.slot, second.slot}.isdisjoint(server.names)
    assert other.slot in server.names
    guests.gone(ALPHA)


def test_a_slot_that_was_left_may_be_anothers(server: PoolServer, guests: Guests) -> None:
    place = come(guests, ALPHA)
    assert guests.ask(ALPHA, place.slot, Opcode.GOODBYE, b"")[0] == Status.OK
    again = come(guests, BETA)
    assert again.slot == place.slot
    assert guests.ask(ALPHA, place.slot, Opcode.LIST, ListQuery(start=0).pack())[0] == Status.GONE
    guests.gone(ALPHA)
    assert again.slot in server.names


@pytest.mark.parametrize("request_", [b"", b"short", bytes(176)])
def test_a_hello_that_makes_no_sense(guests: Guests, request_: bytes) -> None:
    status, answer = guests.ask(ALPHA, 0, Opcode.HELLO, request_)
    assert status in (Status.MALFORMED, Status.VERSION)
    assert answer


def test_rings_reach_other_guests_and_only_of_words_of_the_arena(guests: Guests) -> None:
    rung: list[int | None] = []
    end = guests.listen(rung.append)
    guests.ring(PLAN.heap_at)
    guests.ring(PLAN.size)
    guests.ring((1 << 35) - 8)
    end()
    guests.ring(PLAN.heap_at)
    assert rung == [PLAN.heap_at]
