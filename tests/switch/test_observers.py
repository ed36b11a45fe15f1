"""Who is told of binding changes: before and after each, and that what cannot be written down is not made."""

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.binding import BindingError
from softcxl.switch.physical import PhysicalSwitch

MIB = 1 << 20
SUCCESS, INTERNAL = ReturnCode.SUCCESS, ReturnCode.INTERNAL_ERROR


class Ledger:
    """Notes what it is told, and objects to what `objects` says."""

    def __init__(self):
        self.told = []
        self.objects = lambda what, bound: False
        self.look = lambda: None

    def before(self, change):
        self._note("before", change)

    def after(self, change, code):
        self._note(code.name, change)

    def _note(self, what, change):
        self.told.append((what, change.bound))
        self.look()
        if self.objects(what, change.bound):
            raise OSError("no room is left on the disk")


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def switch(ledger):
    memory = Type3("mem0", volatile=256 * MIB, clock=ManualClock())
    made = PhysicalSwitch("rack", ports=2, virtual=[("left", 2), ("right", 2)], clock=ManualClock())
    made.ports[0].insert(memory)
    made.observers.append(ledger)
    yield made
    made.close()
    memory.close()


def status(switch):
    return [vppb.status for virtual in switch.virtual.values() for vppb in virtual.vppbs]


FREE = [BindingStatus.UNBOUND] * 4
BOUND = [BindingStatus.BOUND_PORT, *FREE[1:]]


def test_before_and_after(switch, ledger):
    switch.bind(0, 0, 0)
    assert switch.unbind(0, 0).code is SUCCESS
    assert ledger.told == [("before", True), ("SUCCESS", True), ("before", False), ("SUCCESS", False)]


def test_what_is_refused_is_told_to_nobody(switch, ledger):
    with pytest.raises(BindingError):
        switch.bind(0, 0, 9)
    with pytest.raises(BindingError):
        switch.unbind(0, 0)
    assert ledger.told == []


def test_a_vppb_is_not_free_before_all_are_told(switch, ledger):
    """Else the next change could be written down before this one."""
    seen = []
    ledger.look = lambda: seen.append((status(switch)[0], _refused(switch)))
    switch.bind(0, 0, 0)
    switch.unbind(0, 0)
    assert seen == [(BindingStatus.IN_PROGRESS, ReturnCode.BUSY)] * 4


def _refused(switch):
    with pytest.raises(BindingError) as refused:
        switch.bind(0, 0, 1)
    return refused.value.code


def test_a_binding_that_cannot_be_written_ahead(switch, ledger, caplog):
    ledger.objects = lambda what, bound: what == "before"
    with pytest.raises(
        BindingError, match="could not be written down: no room is left on the disk"
    ) as refused:
        switch.bind(0, 0, 0)
    assert refused.value.code is INTERNAL
    assert status(switch) == FREE
    assert caplog.messages == ["rack: binding vPPB 0 of VCS 0, port 0: no room is left on the disk"]
    assert caplog.records[0].exc_info is None
    ledger.objects = lambda what, bound: False
    switch.bind(0, 0, 0)


def test_others_are_told_that_one_objects(switch, ledger):
    second = Ledger()
    second.objects = lambda what, bound: what == "before"
    switch.observers.append(second)
    with pytest.raises(BindingError):
        switch.bind(0, 0, 0)
    assert ledger.told == [("before", True), ("INTERNAL_ERROR", True)]
    assert second.told == [("before", True)]


def test_a_binding_that_cannot_be_written_when_made(switch, ledger):
    ledger.objects = lambda what, bound: what == "SUCCESS"
    with pytest.raises(BindingError) as refused:
        switch.bind(0, 0, 0)
    assert refused.value.code is INTERNAL
    assert ledger.told == [("before", True), ("SUCCESS", True), ("INTERNAL_ERROR", True)]
    assert status(switch) == FREE
    assert switch.virtual[0].vppbs[0].function is None
    ledger.objects = lambda what, bound: False
    switch.bind(1, 1, 0)


@pytest.mark.parametrize("option", list(UnbindOption)[1:])
def test_an_unbinding_that_cannot_be_written_when_made(switch, ledger, option):
    switch.bind(0, 0, 0)
    function = switch.virtual[0].vppbs[0].function
    ledger.objects = lambda what, bound: what == "SUCCESS"
    assert switch.unbind(0, 0, option).code is INTERNAL
    assert ledger.told[2:] == [("before", False), ("SUCCESS", False), ("INTERNAL_ERROR", False)]
    assert status(switch) == BOUND
    switch.clock.advance(0)
    assert switch.virtual[0].vppbs[0].function is function
    ledger.objects = lambda what, bound: False
    assert switch.unbind(0, 0, option).code is SUCCESS
    assert status(switch) == FREE


def test_an_unbinding_that_cannot_be_written_ahead(switch, ledger):
    switch.bind(0, 0, 0)
    ledger.objects = lambda what, bound: what == "before"
    with pytest.raises(BindingError, match="could not be written down"):
        switch.unbind(0, 0)
    assert status(switch) == BOUND
