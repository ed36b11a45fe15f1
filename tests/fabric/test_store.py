"""What must survive: bindings written ahead and again when made, and devices' pages."""

import pytest

from softcxl.device.persist import StateDamaged
from softcxl.fabric.store import WHOLE, Binding, Store, Vppb

LEFT, RIGHT = Vppb("rack", "left", 0), Vppb("rack", "right", 1)
POOL0, POOL1 = Binding(LEFT, 0, "pool.0", 0), Binding(RIGHT, 0, "pool.1", 1)


def test_a_binding_says_what_it_is():
    assert str(POOL0) == "rack.left.0 to pool.0"
    assert Binding(LEFT, 1, "mem0").target == "mem0"
    assert Binding(LEFT, 3).target == "port 3"


def test_what_was_made_is_there_again_and_nothing_else(tmp_path):
    with Store(tmp_path) as store:
        store.begin(POOL0)
        store.made(POOL0)
        store.begin(POOL1)
        store.failed(POOL1, reason="BUSY")
        mem0 = Binding(Vppb("rack", "left", 1), 2, "mem0")
        store.begin(mem0)
        store.made(mem0)
        store.begin_undoing(mem0, option="managed")
        store.undone(mem0)
    with Store(tmp_path) as store:
        assert store.recover() == []
        assert store.bindings() == [POOL0]
        assert store.bindings("rack") == [POOL0]
        assert store.bindings("other") == []
        entries = [(one.kind, one.subject, one.detail) for one in store.journal.since(1)][:9]
    assert entries == [
        ("binding-begun", "rack.left.0", {"target": "pool.0", "port": 0}),
        ("binding-made", "rack.left.0", {"target": "pool.0", "port": 0}),
        ("binding-begun", "rack.right.1", {"target": "pool.1", "port": 0}),
        ("binding-failed", "rack.right.1", {"target": "pool.1", "port": 0, "reason": "BUSY"}),
        ("binding-begun", "rack.left.1", {"target": "mem0", "port": 2}),
        ("binding-made", "rack.left.1", {"target": "mem0", "port": 2}),
        ("unbinding-begun", "rack.left.1", {"target": "mem0", "port": 2, "option": "managed"}),
        ("unbinding-made", "rack.left.1", {"target": "mem0", "port": 2}),
        ("stopped", "", {}),
    ]


def test_what_was_begun_is_undone(tmp_path):
    with Store(tmp_path) as store:
        store.begin(POOL0)
        store.made(POOL0)
        store.begin_undoing(POOL0)
        store.begin(POOL1)
    with Store(tmp_path) as store:
        assert [(one.place, one.status) for one in store.recover()] == [
            (LEFT, "unbinding"),
            (RIGHT, "binding"),
        ]
        assert store.bindings() == [POOL0]
        assert [one.kind for one in store.journal.since(0)][-2:] == ["unbinding-undone", "binding-undone"]
        assert store.recover() == []


def test_an_unbinding_that_failed_leaves_it_bound():
    with Store() as store:
        store.made(POOL0)
        store.begin_undoing(POOL0)
        store.not_undone(POOL0, reason="the guest keeps it")
        assert store.bindings() == [POOL0]


@pytest.mark.parametrize(
    "other",
    [
        Binding(LEFT, 5, "mem0"),
        Binding(RIGHT, 0, "pool.0", 0),
        Binding(RIGHT, 0, "renamed", 0),
        Binding(Vppb("second", "left", 0), 4, "pool.0", 0),
    ],
    ids=["the same vPPB", "the same LD", "the same port", "by another head"],
)
def test_nothing_is_bound_twice_in_the_file(other):
    """A row that could not be restored gives way to a binding of what it named."""
    with Store() as store:
        store.made(POOL0)
        store.made(other)
        assert store.bindings() == [other]


def test_empty_ports_and_whole_devices_do_not_exclude_each_other():
    with Store() as store:
        given = [Binding(Vppb("rack", "left", n), n) for n in range(3)]
        given += [Binding(Vppb("rack", "right", n), 3 + n, f"mem{n}") for n in range(3)]
        for one in given:
            store.made(one)
        assert store.bindings() == given
        assert {one.ld for one in given} == {WHOLE}


def test_a_virtual_switch_is_new_once(tmp_path):
    with Store(tmp_path) as store:
        assert store.meet("rack", "left")
        assert not store.meet("rack", "left")
    with Store(tmp_path) as store:
        assert not store.meet("rack", "left")
        assert store.meet("rack", "right")


def test_pages_of_two_devices(tmp_path):
    with Store(tmp_path) as store:
        store.page("mem0").put("shutdown", dirty=True, count=3)
        store.page("mem1").put("shutdown", dirty=False, count=4)
        store.page("mem0").put("firmware", active=1)
    with Store(tmp_path) as store:
        page = store.page("mem0")
        assert page.take("shutdown", lambda one: one["count"]) == 3
        assert page.sections == {"shutdown": {"dirty": True, "count": 3}, "firmware": {"active": 1}}
        assert store.page("mem1").sections == {"shutdown": {"dirty": False, "count": 4}}
        assert store.page("mem2").take("shutdown", bool) is None
        with pytest.raises(StateDamaged, match=r"fabric\.db: mem0: shutdown cannot have been: KeyError"):
            page.take("shutdown", lambda one: one["absent"])


def test_a_page_that_is_no_json(tmp_path):
    with Store(tmp_path) as store:
        with store.database.transaction() as connection:
            connection.execute("INSERT INTO pages VALUES ('mem0', 'shutdown', '[')")
        with pytest.raises(StateDamaged, match=r"fabric\.db: mem0: not the state of a device"):
            store.page("mem0")


def test_in_memory_nothing_is_left_and_all_works():
    with Store() as store:
        store.made(POOL0)
        assert store.bindings() == [POOL0]
        store.page("mem0").put("shutdown", dirty=True)
        assert store.page("mem0").sections == {"shutdown": {"dirty": True}}
    with Store() as store:
        assert store.bindings() == []
        assert not store.crashed
