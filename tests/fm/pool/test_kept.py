"""Regions that stay: their leases run while nobody has them open, whatever servers come and go meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from softcxl.fm.pool.server import PoolServer
from softcxl.pool.layout import RegionState
from softcxl.pool.protocol import Allocate, Hold, Located, Named, Opcode, Status
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena

LEASE = 5.0


class Pool:
    """A pool whose server is another one after `restart`; `owner` and `other` are clients of all of them."""

    def __init__(self) -> None:
        self.sources, self.fd, self.now = [FakeSource("mem0")], arena(), 0.0
        self.server = self._serve()
        self.server.directory.ready()
        self.owner = Client(self.server, self.sources, "owner")
        self.other = Client(self.server, self.sources, "other")

    def _serve(self) -> PoolServer:
        return PoolServer(self.fd, self.sources, plan=PLAN, now=lambda: self.now)

    def restart(self) -> None:
        self.server.close()
        self.server = self._serve()
        self.owner.server = self.other.server = self.server

    def make(self, name: str = "model") -> Named:
        asked = Allocate(
            size=4096, request=0, copies=1, policy=0, separate=0, mode=2, flags=0, source=0,
            lease=round(LEASE * 1000) if name else 0, reserved0=b"", name=name.encode(),
        )  # fmt: skip
        made = Located.unpack(self.owner.execute(Opcode.ALLOCATE, asked.pack()))
        return Named(index=made.index, generation=made.generation, name=b"")

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.server.regions.sweep()

    def there(self, one: Named) -> bool:
        return self.server.directory.region(one.index).word == one.generation << 24 | RegionState.LIVE


def holds(client: Client, one: Named | None = None, opened: int = 0, pins: int = 0) -> None:
    """Say what a client has; that it is all, without a region."""
    index, generation = (one.index, one.generation) if one is not None else (0, 0)
    client.execute(Opcode.HOLD, Hold(index=index, generation=generation, opened=opened, pins=pins).pack())


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.server.close()


@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_a_lease_begins_when_its_owner_has_closed_it_and_lives_on(pool: Pool, restarts: int) -> None:
    one = pool.make()
    pool.owner.execute(Opcode.CLOSE, one.pack())
    for _ in range(restarts):
        pool.restart()
        holds(pool.owner)
        holds(pool.other)
    pool.wait(LEASE - 1)
    assert pool.there(one)
    pool.wait(2)
    assert not pool.there(one)


def test_what_its_owner_has_open_stays_over_a_restart(pool: Pool) -> None:
    one = pool.make()
    pool.restart()
    holds(pool.owner)
    holds(pool.other)
    pool.wait(2 * LEASE)
    assert pool.there(one)
    pool.owner.execute(Opcode.CLOSE, one.pack())
    pool.wait(LEASE + 1)
    assert not pool.there(one)


def test_what_its_owner_has_closed_is_its_owner_s_to_open_and_to_free(pool: Pool) -> None:
    one = pool.make()
    pool.owner.execute(Opcode.CLOSE, one.pack())
    pool.owner.execute(Opcode.OPEN, Named(index=0, generation=0, name=b"model").pack())
    pool.wait(2 * LEASE)
    assert pool.there(one)
    assert pool.server.execute(pool.other.slot, Opcode.FREE, one.pack())[0] == Status.DENIED
    pool.owner.execute(Opcode.FREE, one.pack())
    assert not pool.there(one)


def test_no_lease_ends_before_all_have_said_what_they_have_open(pool: Pool) -> None:
    one = pool.make()
    pool.owner.execute(Opcode.CLOSE, one.pack())
    pool.other.execute(Opcode.OPEN, one.pack())
    pool.restart()
    holds(pool.owner)
    pool.wait(2 * LEASE)
    assert pool.there(one)
    holds(pool.other, one, opened=1)
    holds(pool.other)
    pool.wait(2 * LEASE)
    assert pool.there(one)
    pool.other.execute(Opcode.CLOSE, one.pack())
    pool.wait(LEASE + 1)
    assert not pool.there(one)


@pytest.mark.parametrize("name", ["model", ""])
def test_what_was_closed_without_a_server_and_is_looked_at_yet_goes_when_it_is_not(
    pool: Pool, name: str
) -> None:
    """As a client says that closed it while none was there, and has a view of it."""
    one = pool.make(name)
    pool.owner.execute(Opcode.PIN, one.pack())
    pool.restart()
    holds(pool.owner, one, pins=1)
    holds(pool.owner)
    holds(pool.other)
    pool.wait(2 * LEASE)
    assert one.index in pool.server.regions.known
    pool.owner.execute(Opcode.UNPIN, one.pack())
    pool.wait(LEASE + 1)
    assert not pool.there(one)
