"""What is lost of a pool's memory stays lost until the pool takes it for good: whoever erases it, or takes its poison
off, puts nobody's data back."""

import mmap
import os
from types import SimpleNamespace

import pytest

from softcxl.device.clock import ManualClock
from softcxl.fabric import pool_files
from softcxl.fabric.build import Fabric
from softcxl.fabric.stretches import Stretches
from softcxl.fm.pool.server import PoolServer
from softcxl.pool import errors
from softcxl.pool.protocol import Heal, Opcode
from tests.fm.pool.memories import PLAN, Client, arena

MIB = 1 << 20
SIZE = 256 * MIB
TOPOLOGY = "{devices: {mem0: {volatile: 256MiB}}, pool: {memory: [mem0], arena: 1MiB}}"


class Watch:
    """Remembers what it is told is lost."""

    def __init__(self, source):
        self.source, self.told = source, []
        source.watch(self)

    def poisoned(self, ranges):
        self.told += ranges


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A topology file, whose pool is in a folder of the test's in place of shared memory."""
    monkeypatch.setattr(pool_files, "_SHARED_MEMORY", tmp_path)
    path = tmp_path / "rack.yaml"
    path.write_text(TOPOLOGY)
    return path


def served(path):
    return Fabric.load(path, serves=True, clock=ManualClock())


def killed(fabric):
    fabric.pool_files.fresh = fabric.pool_files.in_order = False
    fabric.close()


def poison_cleared(device):
    """As by the command Clear Poison."""
    device.inject.poison(4096, 128)
    device.space.write(4096, bytes(64))
    device.clear_poison(4096, 64)


def erased(device):
    device.space.clear(0, SIZE)


LOST = [(poison_cleared, [(4096, 128)]), (erased, [(0, SIZE)])]


@pytest.mark.parametrize(("befalls", "lost"), LOST)
def test_what_somebody_else_takes_for_good_is_lost_until_the_pool_does(file, befalls, lost):
    with served(file) as fabric:
        watch = Watch(fabric.pool_sources()[0])
        befalls(fabric.devices["mem0"])
        assert watch.source.poisoned(0, SIZE) == lost
        assert watch.source.poisoned(4200, 8) == [(4160, 64)]
        watch.source.clear_poison(4096, 64)
        assert not watch.source.poisoned(4096, 64)
        assert watch.source.poisoned(4160, 64) == [(4160, 64)]


@pytest.mark.parametrize(("befalls", "lost"), LOST)
def test_it_is_lost_after_a_kill_too(file, befalls, lost):
    fabric = served(file)
    Watch(fabric.pool_sources()[0])
    befalls(fabric.devices["mem0"])
    killed(fabric)
    fabric = served(file)
    watch = Watch(fabric.pool_sources()[0])
    assert watch.source.poisoned(0, SIZE) == lost
    assert [*Stretches(watch.told)] == lost
    watch.source.clear_poison(0, SIZE)
    killed(fabric)
    with served(file) as again:
        assert again.pool_sources()[0].poisoned(0, SIZE) == []


def test_who_is_killed_amid_an_erasure_has_lost_it_all(file, monkeypatch):
    fabric = served(file)
    source = fabric.pool_sources()[0]
    Watch(source)
    monkeypatch.setattr(source, "told_good", lambda ranges: None)  # which is never said
    erased(fabric.devices["mem0"])
    killed(fabric)
    with served(file) as again:
        assert again.pool_sources()[0].poisoned(0, SIZE) == [(0, SIZE)]


def test_what_cannot_be_written_down_is_as_it_was(file, monkeypatch):
    """Else the next server would take for lost what somebody has written there since."""
    with served(file) as fabric:
        source = fabric.pool_sources()[0]
        Watch(source)
        fabric.devices["mem0"].inject.poison(4096)

        def full(*what, **content):
            raise OSError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(source._page, "put", full)
            with pytest.raises(OSError, match="no space left"):
                source.clear_poison(4096, 64)
        assert source.poisoned(0, SIZE) == [(4096, 64)]
        source.clear_poison(4096, 64)
        assert not source.poisoned(0, SIZE)


@pytest.mark.parametrize("befalls", [poison_cleared, erased])
def test_a_region_s_last_copy_is_never_quietly_zeros(befalls):
    """Not when its poison is looked at again, nor to a server that begins anew, until it is written."""
    fd = arena(PLAN)
    with Fabric.loads(TOPOLOGY, clock=ManualClock()) as fabric:
        memory = mmap.mmap(os.dup(fabric.devices["mem0"].medium.fd), SIZE)
        mapped = [SimpleNamespace(name="mem0", memory=memory)]
        sources = fabric.pool_sources()
        server = PoolServer(fd, sources, plan=PLAN)
        server.directory.ready()
        client = Client(server, mapped)
        made = client.allocate(8192, name="kept", source=2)
        client.region(made).write(0, b"kept" * 2048)
        assert server.regions.known[made.index].extents == (1 << 56,)
        befalls(fabric.devices["mem0"])
        for again in (False, True):
            if again:
                server.close()
                server = PoolServer(fd, sources, plan=PLAN)
                client = Client(server, mapped)
            for _ in range(20):
                server.health.tick()
                server.rebuilder.round()
            with pytest.raises(errors.Poisoned):
                client.region(made).read(4096, 128)
        region = client.region(made)
        region.write(0, b"anew" * 2048)
        health = server.directory.header.health
        asked = Heal(index=made.index, generation=made.generation, offset=0, length=8192, health=health)
        client.execute(Opcode.HEAL, asked.pack())
        assert region.read(0, 8192) == b"anew" * 2048
        server.close()
