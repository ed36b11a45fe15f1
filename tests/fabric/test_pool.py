"""The memory of a pool as its server gets it: where it is, what befalls it, and what outlives a server."""

import os
import stat

import pytest

from softcxl.device.clock import ManualClock
from softcxl.fabric import pool_files, scenario
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import BuildError
from softcxl.fabric.play import play
from softcxl.fabric.pool_files import PoolFiles
from softcxl.fabric.topology import loads
from softcxl.fm.pool.source import Source
from softcxl.switch.binding import BindingError

MIB = 1 << 20
SIZE = 256 * MIB
DATA = b"kept" * 16

TOPOLOGY = """\
devices:
  mem0: {volatile: 256MiB}
  mem1: {volatile: 256MiB, persistent: 256MiB}
  other: {volatile: 256MiB}
  shared: {type: mld, volatile: 1GiB, logical_devices: [256MiB, 256MiB]}
switches:
  rack:
    ports: [shared, mem1]
    virtual: {left: {ports: [shared.0, null]}}
hosts:
  alpha: {bridges: {hb0: {ports: [left, other]}}}
pool: {memory: [mem0, mem1, shared.1], arena: 1MiB}
"""


class Watch:
    def __init__(self, source):
        self.source, self.calls = source, []
        source.watch(self)

    def failed(self, reason):
        self.calls.append(("failed", reason))

    def spoiled(self):
        self.calls.append(("spoiled",))

    def returned(self, kept):
        self.calls.append(("returned", kept))

    def poisoned(self, ranges):
        self.calls.append(("poisoned", list(ranges)))


@pytest.fixture
def fabric():
    with Fabric.loads(TOPOLOGY, clock=ManualClock()) as fabric:
        yield fabric


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A topology file, whose pool is in a folder of the test's in place of shared memory."""
    monkeypatch.setattr(pool_files, "_SHARED_MEMORY", tmp_path)
    path = tmp_path / "rack.yaml"
    path.write_text(TOPOLOGY)
    return path


def served(path, **more):
    return Fabric.load(path, serves=True, clock=ManualClock(), **more)


def killed(fabric):
    """As a server that is killed leaves the files: nothing was said in order."""
    fabric.pool_files.fresh = fabric.pool_files.in_order = False
    fabric.close()


# -- what it is --------------------------------------------------------------------------------------------------


def test_sources_are_what_the_topology_says(fabric):
    found: list[Source] = [*fabric.pool_sources()]
    assert [(one.name, one.device, one.switch, one.size, one.offset) for one in found] == [
        ("mem0", "mem0", None, SIZE, 0),
        ("mem1", "mem1", "rack", 2 * SIZE, 0),
        ("shared.1", "shared", "rack", SIZE, 0),
    ]


def test_a_source_s_file_is_the_device_s_memory(fabric):
    for source in fabric.pool_sources():
        os.pwrite(source.fd, DATA, 4096)
        assert fabric.devices[source.name].space.read(4096, len(DATA)) == DATA


def test_without_a_pool_there_are_no_sources():
    with Fabric.loads("devices: {mem0: {volatile: 256MiB}}") as fabric:
        assert (fabric.pool_sources(), fabric.pooled) == ([], frozenset())


def test_nobody_else_gets_the_memory(fabric, tmp_path):
    switch = fabric.switches["rack"]
    with pytest.raises(BindingError, match=r"shared.1 is bound to the pool"):
        switch.bind(0, 1, port=0, ld=1)
    with pytest.raises(BindingError, match="mem1 is the pool's"):
        switch.bind(0, 1, port=1)
    with pytest.raises(BuildError, match=r"devices.mem0: its memory is the pool's"):
        fabric.door("alpha", "mem0", tmp_path).__enter__()
    with pytest.raises(ValueError, match="its allocation cannot change"):
        fabric.mlds["shared"].allocate({1: 0})


def test_memory_that_a_fabric_manager_gave_to_others_is_missed(tmp_path):
    path = tmp_path / "t.yaml"
    devices = (
        "devices: {shared: {type: mld, volatile: 512MiB, logical_devices: [256MiB, 256MiB]}}\nstate: s\n"
    )
    path.write_text(devices)
    with Fabric.load(path) as fabric:
        fabric.mlds["shared"].allocate({1: 0})
    path.write_text(devices + "pool: {memory: [shared.0, shared.1]}\n")
    with pytest.raises(BuildError, match=r"pool.memory\[1\]: shared.1 has no memory any more"):
        Fabric.load(path)


def test_ranges_outside_a_source_are_refused(fabric):
    source = fabric.pool_sources()[0]
    with pytest.raises(ValueError, match=r"0x40 bytes at 0x10000000 are not within its 0x10000000 bytes"):
        source.poisoned(SIZE, 64)
    with pytest.raises(ValueError, match="not within"):
        source.clear_poison(-64, 64)
    with pytest.raises(ValueError, match="no whole lines of 64 bytes"):
        source.clear_poison(32, 64)


# -- what befalls it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mem0", "mem1", "shared.1"])
def test_poison_death_and_links_reach_the_observer(fabric, name):
    watch = Watch(next(one for one in fabric.pool_sources() if one.name == name))
    inject = fabric.devices[name].inject
    inject.poison(4096)
    inject.link_down()
    inject.link_up()
    inject.die("silent")
    inject.revive()
    assert watch.calls == [
        ("poisoned", [(4096, 64)]),
        ("failed", "its link is down"),
        ("returned", True),
        ("failed", "it does not answer"),
        ("spoiled",),
        ("returned", False),
    ]
    assert watch.source.poisoned(0, SIZE) == [(4096, 64)]


def test_poison_is_cleared_by_the_pool(fabric):
    source = fabric.pool_sources()[0]
    fabric.devices["mem0"].inject.poison(4096, 128)
    watch = Watch(source)
    source.clear_poison(4096, 64)
    assert watch.calls == [("poisoned", [(4096, 128)])]
    assert source.poisoned(0, SIZE) == [(4160, 64)]
    assert os.pread(source.fd, 64, 4096) == bytes(64)


def test_a_port_s_link_and_slot_reach_all_that_is_in_it(fabric):
    port, whole = fabric.switches["rack"].ports[0], fabric.switches["rack"].ports[1]
    logical, single = (Watch(one) for one in fabric.pool_sources()[::-1][:2])
    port.cut()
    port.cut(False)
    assert logical.calls == [("failed", "its link is down"), ("returned", True)]
    assert single.calls == []
    whole.assert_perst()
    whole.deassert_perst()
    assert single.calls == [("failed", "its link is down"), ("spoiled",), ("returned", False)]
    del single.calls[:]
    device = whole.remove()
    assert [one[0] for one in single.calls] == ["failed", "spoiled"]
    whole.insert(device)
    assert single.calls[2:] == [("returned", False)]


def test_a_scenario_reaches_the_observer(fabric):
    watches = {one.name: Watch(one) for one in fabric.pool_sources()}
    steps = """
    steps:
      - {device: mem0, poison: {address: 0, length: 64}}
      - {device: mem1, die: media}
      - {device: mem0, link: down}
      - {device: shared.1, die: silent}
    """
    report = play(fabric, scenario.loads(steps, fabric.topology), fabric.clock)
    assert report.passed
    assert watches["mem0"].calls == [("poisoned", [(0, 64)]), ("failed", "its link is down")]
    assert watches["mem1"].calls == [("failed", "its media have failed"), ("spoiled",)]
    assert watches["shared.1"].calls == [("failed", "it does not answer"), ("spoiled",)]


# -- what outlives a server --------------------------------------------------------------------------------------


def test_a_killed_server_s_pool_is_found_as_it_was(file):
    fabric = served(file)
    assert fabric.pool_files.fresh
    for source in fabric.pool_sources():
        os.pwrite(source.fd, DATA, 0)
    fabric.pool_files.arena.write(0, DATA)
    killed(fabric)
    with served(file) as again:
        assert not again.pool_files.fresh
        assert again.pool_files.arena.read(0, len(DATA)) == DATA
        assert [os.pread(one.fd, len(DATA), 0) for one in again.pool_sources()] == [DATA] * 3


def test_files_are_their_owner_s_alone(file):
    with served(file) as fabric:
        folder = fabric.pool_files.folder
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}
        assert {stat.S_IMODE(one.stat().st_mode) for one in (folder, folder.parent)} == {0o700}
        assert set(modes.values()) == {0o600}
        assert {"arena", "mem0.mem", "mem1.mem", "shared.1.mem"} <= modes.keys()


def test_a_server_that_ends_in_order_leaves_nothing(file):
    with served(file) as fabric:
        folder = fabric.pool_files.folder
        fabric.pool_files.in_order = True
    assert not folder.exists()


def test_a_server_that_could_not_begin_leaves_what_it_found(file):
    fabric = served(file)
    fabric.pool_files.arena.write(0, DATA)
    killed(fabric)
    with served(file):
        pass  # its sockets were in use, say
    with served(file) as again:
        assert again.pool_files.arena.read(0, len(DATA)) == DATA


def test_with_state_the_pool_outlives_servers_that_end_in_order(file):
    file.write_text(TOPOLOGY + "state: kept\n")
    with served(file) as fabric:
        os.pwrite(fabric.pool_sources()[0].fd, DATA, 0)
        fabric.pool_files.in_order = True
    assert fabric.pool_files.folder == file.parent / "kept" / "pool"
    with served(file) as again:
        assert not again.pool_files.fresh
        assert os.pread(again.pool_sources()[0].fd, len(DATA), 0) == DATA


@pytest.mark.parametrize("in_order", [True, False])
def test_after_a_reboot_only_what_was_saved_in_order_is_there(file, in_order):
    file.write_text(TOPOLOGY + "state: kept\n")
    given = loads(file.read_text(), str(file), file.parent)
    files = PoolFiles(file, given, boot="one")
    files.arena.write(0, DATA)
    files.home("mem0").write_bytes(DATA)
    files.in_order = in_order
    files.close()
    after = PoolFiles(file, given, boot="two")
    assert after.fresh is not in_order
    assert after.arena.read(0, len(DATA)) == (DATA if in_order else bytes(len(DATA)))
    assert after.home("mem0").exists() is in_order
    after.close()


def test_poison_outlives_a_killed_server(file):
    fabric = served(file)
    watches = [Watch(one) for one in fabric.pool_sources()]
    fabric.devices["mem0"].inject.poison(4096, 128)
    fabric.devices["shared.1"].inject.poison(0)
    watches[0].source.clear_poison(4096, 64)
    killed(fabric)
    with served(file) as again:
        assert [one.poisoned(0, one.size) for one in again.pool_sources()] == [[(4160, 64)], [], [(0, 64)]]


def test_who_does_not_serve_finds_an_empty_pool(file):
    with served(file) as fabric:
        os.pwrite(fabric.pool_sources()[0].fd, DATA, 0)
        with Fabric.load(file) as other:
            assert other.pool_files is None
            assert os.pread(other.pool_sources()[0].fd, len(DATA), 0) == bytes(len(DATA))


def test_two_servers_of_one_pool(file):
    with served(file), pytest.raises(BuildError, match="pool: another server has it already"):
        served(file)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("arena: 1MiB", "arena: 2MiB"),
        ("[mem0, mem1, shared.1]", "[mem1, mem0, shared.1]"),
        ("[mem0, mem1, shared.1]", "[mem0, mem1]"),
        ("mem0: {volatile: 256MiB}", "mem0: {volatile: 512MiB}"),
    ],
)
def test_another_pool_is_not_put_in_the_place_of_what_is_there(file, old, new):
    killed(served(file))
    file.write_text(TOPOLOGY.replace(old, new))
    says = r"has an arena of 1MiB and the memory mem0 \(256MiB\), mem1 \(512MiB\), shared.1 \(256MiB\)"
    with pytest.raises(BuildError, match=says):
        served(file)


def test_more_memory_behind_what_was_is_fine(file):
    file.write_text(TOPOLOGY.replace("[mem0, mem1, shared.1]", "[mem0, mem1]"))
    killed(served(file))
    file.write_text(TOPOLOGY)
    with served(file) as fabric:
        assert not fabric.pool_files.fresh


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1, "boot": 1}', '{"format": 7}'])
def test_a_page_that_is_damaged_is_left_as_it_is(file, text):
    fabric = served(file)
    page = fabric.pool_files.folder / "pool.json"
    killed(fabric)
    page.write_text(text)
    with pytest.raises(BuildError, match=r"pool.json: (it is damaged|format 7, this version reads 1)"):
        served(file)
    assert page.read_text() == text


def test_poison_that_cannot_have_been_is_refused(file):
    fabric = served(file)
    folder = fabric.pool_files.folder
    killed(fabric)
    (folder / "mem0.poison").write_text("{")
    with served(file) as again, pytest.raises(BuildError, match=r"mem0.poison: not the state of a device"):
        again.pool_sources()


def test_a_folder_that_others_can_enter_is_not_used(file, tmp_path):
    folder = tmp_path / f"softcxl-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(BuildError, match=r"is not a folder that is yours alone \(mode 0700\)"):
        served(file)


def test_a_link_in_place_of_the_folder_is_not_followed(file, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"softcxl-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BuildError, match="is not a folder that is yours alone"):
        served(file)


def test_a_file_in_place_of_the_folder(file, tmp_path):
    (tmp_path / f"softcxl-{os.geteuid()}").write_text("")
    with pytest.raises(BuildError, match=r"pool: .*File exists"):
        served(file)


def test_two_topologies_of_one_name_have_each_its_pool(file, tmp_path):
    other = tmp_path / "further" / file.name
    other.parent.mkdir()
    other.write_text(TOPOLOGY)
    with served(file) as one, served(other) as two:
        assert one.pool_files.folder != two.pool_files.folder


def disk(monkeypatch, free):
    """A file system that has so much room."""
    there = os.statvfs_result((4096, 4096, 1 << 30, free >> 12, free >> 12, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "fstatvfs", lambda fd: there)


def test_an_arena_that_there_is_no_room_for_is_not_served(file, monkeypatch):
    disk(monkeypatch, 1 << 19)
    with pytest.raises(
        BuildError, match=r"an arena of 1MiB is 512KiB more than the file system of .* has room for"
    ):
        served(file).__enter__()
    monkeypatch.undo()
    with served(file) as again:  # nothing is left of it, and nothing is in the way
        assert again.pool_files.fresh


def test_memory_that_there_may_be_no_room_for_is_a_warning(file, monkeypatch, caplog):
    disk(monkeypatch, 65 << 20)
    with served(file):
        (warning,) = [one.getMessage() for one in caplog.records if "may take" in one.getMessage()]
        assert "what is more than that is refused" in warning
