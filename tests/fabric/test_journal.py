"""The journal: order, numbers, times, and reading it while it grows."""

import contextlib
import json
import threading
from itertools import count

import pytest

from softcxl.fabric import journal as module
from softcxl.fabric.errors import StateUnusable
from softcxl.fabric.journal import Entry, read
from softcxl.fabric.store import Store

MOMENT = 1_700_000_000_123_456_789  # 2023-11-14 22:13:20.123456789 UTC, as date(1) says of 1700000000


def test_rows_are_numbered_from_one_and_timed():
    moments = count(MOMENT, 1000)
    with Store(now=lambda: next(moments)) as store:
        assert store.journal.add("reset", "rack port 0", kind_of="hot") == 2
        first, second = store.journal.since(0)
    assert (first.seq, first.kind, first.when) == (1, "started", "2023-11-14T22:13:20.123456Z")
    assert second == Entry(2, MOMENT + 1000, "reset", "rack port 0", {"kind_of": "hot"})
    assert str(second) == "     2 2023-11-14T22:13:20.123457Z reset              rack port 0 kind_of=hot"
    assert json.loads(json.dumps(second.plain()))["detail"] == {"kind_of": "hot"}


def test_what_a_server_that_ended_and_one_that_died_leave(tmp_path):
    Store(tmp_path).close()
    store = Store(tmp_path)
    assert not store.crashed
    store.database.close()  # as a killed one: nothing is said
    with Store(tmp_path) as store:
        assert store.crashed
        kinds = [entry.kind for entry in store.journal.since(0)]
    assert kinds == ["started", "stopped", "started", "crash-seen", "started"]
    assert [entry.seq for entry in read(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_since_is_a_number_and_not_a_position():
    with Store() as store:
        for number in range(600):  # more than are fetched at a time
            store.journal.add("reset", number=number)
        assert [entry.detail["number"] for entry in store.journal.since(301)] == list(range(300, 600))
        assert list(store.journal.since(10_000)) == []
        assert list(store.journal.since(1 << 70)) == []
        assert next(store.journal.since(-1)).seq == 1


def test_numbers_have_no_gap_whatever_fails():
    with Store() as store:
        for number in range(20):
            try:
                with store.database.transaction():
                    store.journal.add("reset")
                    store.journal.add("power", number=number)
                    if number % 3:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        assert [entry.seq for entry in store.journal.since(0)] == list(range(1, 16))


def test_numbers_from_many_threads():
    with Store() as store:

        def add(name):
            for number in range(50):
                store.journal.add("reset", name, number=number)

        threads = [threading.Thread(target=add, args=(f"t{one}",)) for one in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entries = list(store.journal.since(1))
    assert [entry.seq for entry in entries] == list(range(2, 402))
    for one in range(8):
        assert [e.detail["number"] for e in entries if e.subject == f"t{one}"] == list(range(50))


def test_the_oldest_rows_go(monkeypatch):
    monkeypatch.setattr(module, "KEPT_IN_MEMORY", 10)
    with Store() as store:
        for _ in range(1100):
            store.journal.add("reset")
        entries = [entry.seq for entry in store.journal.since(0)]
    assert entries == list(range(1024 - 10 + 1, 1102))


def test_waiting_ends_with_a_row_that_is_kept():
    with Store() as store:
        seq = store.journal.last
        assert not store.journal.wait(seq, 0)
        found = []
        waiter = threading.Thread(target=lambda: found.append(store.journal.wait(seq, 60)))
        waiter.start()
        with contextlib.suppress(ZeroDivisionError), store.database.transaction():
            store.journal.add("reset")
            raise ZeroDivisionError
        assert not store.journal.wait(seq, 0)
        store.journal.add("reset")
        waiter.join()
    assert found == [True]


def test_waiting_ends_with_the_server():
    store = Store()
    found = []
    waiter = threading.Thread(target=lambda: found.append(store.journal.wait(store.journal.last, 60)))
    waiter.start()
    store.journal.close()
    waiter.join()
    store.close()
    assert found == [False]


def test_it_is_read_while_a_server_writes(tmp_path):
    assert read(tmp_path) == []
    with Store(tmp_path) as store:
        store.journal.add("reset", "mem0")
        assert [entry.kind for entry in read(tmp_path)] == ["started", "reset"]
        assert [entry.kind for entry in read(tmp_path, 1)] == ["reset"]
        store.journal.add("power", "mem0")
        assert [entry.kind for entry in read(tmp_path, 2)] == ["power"]


def test_reading_what_is_no_journal(tmp_path):
    (tmp_path / "fabric.db").write_bytes(b"")
    assert read(tmp_path) == []  # a server died before it had made its tables
    (tmp_path / "fabric.db").write_bytes(b"x" * 5000)
    with pytest.raises(StateUnusable, match="is damaged"):
        read(tmp_path)
