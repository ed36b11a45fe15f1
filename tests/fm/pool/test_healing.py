"""Poisoned lines that a client has written over are good again, whatever else is done with its region meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from softcxl.fm.pool.copies import Copies
from softcxl.fm.pool.server import PoolServer
from softcxl.pool.protocol import Heal, Located, Opcode, Status
from tests.fm.pool.asking import of
from tests.fm.pool.memories import PLAN, Client, FakeSource, arena

SIZE = 8192


class Interrupted(FakeSource):
    """Something happens before its lines are cleared, once."""

    meanwhile: Callable[[], None] | None = None

    def clear_poison(self, offset: int, length: int) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        super().clear_poison(offset, length)


class Pool:
    def __init__(self) -> None:
        self.sources = [Interrupted("mem0"), Interrupted("mem1")]
        self.server = PoolServer(arena(), self.sources, plan=PLAN)
        self.server.directory.ready()
        self.client = Client(self.server, self.sources)

    def written_over(self) -> Located:
        """A region whose only copy had poison, which was written over."""
        made = self.client.allocate(SIZE, source=2)
        self.sources[0].poison(64, 4096)
        self.server.health.tick()
        self.client.region(made).write(0, b"anew" * (SIZE // 4))
        return made

    def heal(self, made: Located) -> int:
        asked = Heal(
            index=made.index, generation=made.generation, offset=0, length=SIZE,
            health=self.server.directory.header.health,
        )  # fmt: skip
        return self.server.execute(self.client.slot, Opcode.HEAL, asked.pack())[0]


def test_a_region_that_is_freed_while_it_is_healed_leaves_zeros() -> None:
    """What is written in it has the server's name in its lock, as who clears it has."""
    pool = Pool()
    made = pool.written_over()

    def free() -> None:
        pool.client.execute(Opcode.FREE, of(made))
        pool.server.regions.clearing.clear(pool.server.lock)

    pool.sources[0].meanwhile = free
    assert pool.heal(made) in (Status.OK, Status.BUSY, Status.GONE)
    pool.server.regions.sweep()
    pool.server.regions.clearing.clear(pool.server.lock)
    assert made.index not in pool.server.regions.known
    assert pool.sources[0].memory[:] == bytes(pool.sources[0].size)
    whole = pool.client.allocate(pool.sources[0].size, source=2)
    assert pool.client.region(whole).read(0, 16) == bytes(16)
    pool.server.close()


def test_a_region_that_is_mended_and_healed_at_once_is_at_work_till_both_have_ended() -> None:
    pool = Pool()
    made = pool.written_over()
    clearing = pool.server.regions.clearing
    seen: list[bool] = []

    def free() -> None:
        clearing.work_begins(made.index)
        clearing.work_ends(made.index)
        pool.client.execute(Opcode.FREE, of(made))
        seen.append(clearing.waiting == 1 and not clearing.coming)

    pool.sources[0].meanwhile = free
    pool.heal(made)
    assert seen == [True]
    pool.server.regions.sweep()
    assert clearing.coming == 1
    pool.server.close()


def test_what_was_healed_is_clean_where_it_was_and_not_where_it_is_by_now() -> None:
    pool = Pool()
    made = pool.written_over()
    copies = Copies(pool.server.directory, made.index)
    repairer = pool.server.rebuilder.repairer
    was, told = copies.extent(0), pool.server.sources.all[1].poisonings
    pool.server.sources.all[2].poisonings = told
    copies.place(0, 2 << 56)
    assert not repairer._set_clean(was, told, copies, 0)
    assert copies.poisoned == 1
    copies.place(0, was)
    assert repairer._set_clean(was, told, copies, 0)
    assert not copies.poisoned
    pool.server.close()


def test_a_job_that_fails_does_not_keep_others_waiting() -> None:
    """Somebody waits for each of them."""
    pool = Pool()
    done: list[str] = []

    def fails() -> None:
        pool.server.rebuilder._jobs.append(lambda: done.append("the next"))
        raise OSError("no space left")

    pool.server.rebuilder.do(fails)
    pool.server.rebuilder._do_jobs()
    assert done == ["the next"]
    pool.server.close()
