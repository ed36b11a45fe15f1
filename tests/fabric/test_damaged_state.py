"""A state folder whose file has other bytes somewhere: it is refused in a sentence, or used; never anything else."""

import random
import shutil
import sqlite3

import pytest

from softcxl.device.clock import ManualClock
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import SoftCXLError
from softcxl.fabric.journal import read
from tests.fabric import crashes


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A fabric that has been used, ended in order."""
    folder = tmp_path_factory.mktemp("good") / "fabric"
    crashes.begin(folder)
    with crashes.load(folder) as fabric:
        for operation in crashes.SCRIPT:
            assert crashes.do(fabric, operation)
        for _ in range(100):
            fabric.store.journal.add("reset", "rack.0", device="pool")
    return folder


def copied(good, tmp_path):
    """The topology and the database; media would be long to copy, and are not what is damaged here."""
    state = tmp_path / "state"
    state.mkdir()
    shutil.copy(good / "fabric.yaml", tmp_path)
    shutil.copy(good / "state" / "fabric.db", state)
    return state / "fabric.db"


def used(folder):
    """What comes of it: refused, or live for a while and read."""
    try:
        with Fabric.load(folder / "fabric.yaml", clock=ManualClock()) as fabric:
            crashes.do(fabric, ["bind", 0, 2, 2, None])
            list(fabric.store.journal.since(0))
        read(folder / "state")
    except SoftCXLError as error:
        return str(error) and "refused"
    return "used"


@pytest.mark.parametrize("seed", range(60))
def test_any_bytes_changed(good, tmp_path, seed):
    file, draw = copied(good, tmp_path), random.Random(seed)
    data = bytearray(file.read_bytes())
    for _ in range(draw.choice([1, 10, 1000])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    file.write_bytes(data)
    used(tmp_path)


@pytest.mark.parametrize("size", [0, 99, 100, 4095, 4096, 10_000, 16_384])
def test_cut_short(good, tmp_path, size):
    file = copied(good, tmp_path)
    file.write_bytes(file.read_bytes()[:size])
    assert used(tmp_path) == ("used" if not size else "refused")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE pages SET content = '['", "not the state of a device"),
        ("UPDATE pages SET content = '5'", "not the state of a device"),
        ("UPDATE pages SET content = '{\"each\": 1}' WHERE section = 'allocations'", "cannot have been"),
        ("DROP TABLE bindings", "cannot be used: no such table: bindings"),
        ("DROP TABLE journal", "cannot be used: no such table: journal"),
    ],
)
def test_rows_that_cannot_be(good, tmp_path, statement, says):
    file = copied(good, tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(SoftCXLError, match=says):
        Fabric.load(tmp_path / "fabric.yaml", clock=ManualClock())


def test_bindings_that_cannot_be_are_not_restored(good, tmp_path):
    file = copied(good, tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE bindings SET ld = 999, port = -1 WHERE vppb = 1 AND vcs = 'left'")
    connection.close()
    with Fabric.load(tmp_path / "fabric.yaml", clock=ManualClock()) as fabric:
        assert fabric.problems != []
        assert all("rack has no downstream port -1" in one for one in fabric.problems)


def test_a_row_of_the_journal_that_cannot_be(good, tmp_path):
    file = copied(good, tmp_path)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE journal SET detail = 'x' WHERE seq = 5")
    connection.close()
    with pytest.raises(SoftCXLError, match="journal: row 5 is damaged"):
        read(tmp_path / "state")
