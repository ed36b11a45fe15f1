"""The file of a fabric's state: who may have it, what is refused, and that a failed write leaves nothing."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress

import pytest

from softcxl.fabric.database import VERSION, Database
from softcxl.fabric.errors import StateUnusable, StateUnwritable
from softcxl.fabric.store import Binding, Store, Vppb

PLACE = Vppb("rack", "left", 0)


def raw(folder):
    return closing(sqlite3.connect(folder / "fabric.db", isolation_level=None))


def test_the_file_is_its_owners_alone(tmp_path):
    with Store(tmp_path):
        for one in tmp_path.iterdir():
            assert one.stat().st_mode & 0o077 == 0, one


def test_one_server_at_a_time(tmp_path):
    with Store(tmp_path):
        with pytest.raises(
            StateUnusable, match=rf"{tmp_path} is in use by .*process {os.getpid()}\); one at a"
        ):
            Store(tmp_path)
        code = f"from pathlib import Path; from softcxl.fabric.store import Store; Store(Path({str(tmp_path)!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "is in use by another server" in done.stderr
    Store(tmp_path).close()


def test_a_file_that_is_no_database_is_refused_and_left(tmp_path):
    (tmp_path / "fabric.db").write_bytes(b"not a database, but long enough to look like one" * 40)
    before = (tmp_path / "fabric.db").read_bytes()
    with pytest.raises(StateUnusable, match=r"fabric\.db: is damaged"):
        Store(tmp_path)
    assert (tmp_path / "fabric.db").read_bytes() == before


def test_a_database_of_another_program_is_refused_and_left(tmp_path):
    with raw(tmp_path) as other:
        other.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StateUnusable, match="is a database of another program"):
        Store(tmp_path)
    with raw(tmp_path) as other:
        assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]


def test_a_newer_format_is_refused(tmp_path):
    Store(tmp_path).close()
    with raw(tmp_path) as newer:
        newer.execute(f"PRAGMA user_version={VERSION + 1}")
    with pytest.raises(
        StateUnusable, match=f"has format {VERSION + 1}, and this version of SoftCXL reads {VERSION}"
    ):
        Store(tmp_path)


def test_damage_inside_is_found_after_a_crash(tmp_path):
    store = Store(tmp_path)
    for number in range(2000):
        store.journal.add("reset", "mem0", number=number)
    store.close()
    with raw(tmp_path) as crashed:  # as if it had died
        crashed.execute("DELETE FROM journal WHERE kind = 'stopped'")
    with (tmp_path / "fabric.db").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 3 * 4096)
    with pytest.raises(StateUnusable, match=r"fabric\.db: is damaged"):
        Store(tmp_path)


def test_a_file_that_another_program_locks_is_said_to_be(tmp_path, monkeypatch):
    Store(tmp_path).close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **more: connect(*given, **more | {"timeout": 0}))
    with raw(tmp_path) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateUnusable, match="is locked by another program"):
            Store(tmp_path)
        other.execute("ROLLBACK")
    Store(tmp_path).close()


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateUnusable, match="state: cannot be written: File exists"):
        Store(tmp_path / "state")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StateUnusable, match="cannot be written: Permission denied"):
        Store(tmp_path)


READ_ONLY = """
import subprocess, sys
from pathlib import Path
from softcxl.fabric.errors import StateUnusable
from softcxl.fabric.journal import read
from softcxl.fabric.store import Store
folder = Path(sys.argv[1])
Store(folder).close()
subprocess.run(["mount", "--bind", folder, folder], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
try:
    Store(folder)
except StateUnusable as error:
    print(error)
print([entry.kind for entry in read(folder)])
"""


def test_a_read_only_file_system(tmp_path):
    """A server says that it cannot; the journal can be read all the same."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*namespace, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no mount namespace of one's own here")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", READ_ONLY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        f"state: {tmp_path}: cannot be written: Read-only file system",
        "['started', 'stopped']",
    ], done.stderr


FULL = """
import resource, sys
from pathlib import Path
from softcxl.fabric.errors import StateUnwritable
from softcxl.fabric.store import Binding, Store, Vppb
store = Store(Path(sys.argv[1]))
made = Binding(Vppb("rack", "left", 0), 0, "pool.0", 0)
store.begin(made)
store.made(made)
size = store.database.path.with_name("fabric.db-wal").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
for number in range(1, 4):
    binding = Binding(Vppb("rack", "left", number), 0, f"pool.{number}", number)
    for step in (store.begin, store.made):
        try:
            step(binding)
        except StateUnwritable as error:
            print(error)
page = store.page("mem0")
try:
    page.put("security", locked=True)
except OSError as error:
    print(page.sections)
print([str(one) for one in store.bindings()], store.journal.last)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
binding = Binding(Vppb("rack", "right", 0), 0, "pool.7", 7)
store.begin(binding)
store.made(binding)
page.put("security", locked=True)
store.close()
"""


def test_a_full_disk_keeps_nothing_by_half(tmp_path):
    """Every write fails from some time on; what was there stays, and when there is room again all goes on."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert not done.stderr
    *failures, last = done.stdout.splitlines()
    assert len(failures) == 7
    assert set(failures) <= {
        "{}",
        f"{tmp_path}/fabric.db: no room is left on the disk",
        f"{tmp_path}/fabric.db: cannot be used: disk I/O error",
    }
    assert last == "['rack.left.0 to pool.0'] 3"
    with Store(tmp_path) as store:
        assert not store.crashed
        assert [str(one) for one in store.bindings()] == ["rack.left.0 to pool.0", "rack.right.0 to pool.7"]
        assert store.page("mem0").sections == {"security": {"locked": True}}
        assert [one.seq for one in store.journal.since(0)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_transaction_that_is_left_by_an_error_keeps_nothing(tmp_path):
    with Store(tmp_path) as store:
        with suppress(ZeroDivisionError), store.database.transaction():
            store.made(Binding(PLACE, 0, "pool.0", 0))
            raise ZeroDivisionError
        assert store.bindings() == []
        assert store.journal.add("reset") == 2


def test_an_inner_transaction_is_part_of_the_outer_one(tmp_path):
    database = Database(tmp_path)
    with suppress(ZeroDivisionError), database.transaction():
        with database.transaction() as connection:
            connection.execute("INSERT INTO virtual_switches VALUES ('rack', 'left')")
        raise ZeroDivisionError
    assert database.rows("SELECT * FROM virtual_switches") == []
    database.close()


def test_a_closed_database_says_so(tmp_path):
    database = Database(tmp_path)
    database.close()
    database.close()
    with pytest.raises(StateUnwritable), database.transaction():
        pass
