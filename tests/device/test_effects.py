"""The Command Effects Log is true: what a command changes is what its entry tells of, at once and after a reset.

Two devices in the same state are looked at as software does, one of them after the command, and both after the same
reset. Bits are those of CXL 3.1 Table 8-75; Linux has them in drivers/cxl/cxlmem.h (enum cxl_opcode's CEL entries)
and include/cxl/mailbox.h.
"""

import struct

import pytest

from softcxl.wire import Reset
from tests.device import effects
from tests.device.effects import (
    ABORT,
    BACKGROUND,
    CASES,
    COLD,
    CONVENTIONAL,
    CXL,
    QUESTIONS,
    REFUSING,
    SECONDARY,
    SILENT,
    TOLD_BY,
    UNSEEN,
    VALID,
    changed,
)

SUCCESS, STARTED, NO_ABORT = 0x00, 0x01, 0x20
EVERY = [
    pytest.param(opcode, one, id=f"{opcode:04X}-{one.name}") for opcode in CASES for one in CASES[opcode]
]


def log():
    """The Command Effects Log as the device tells it, by opcode."""
    one = effects.bench()
    try:
        size = 4 * len(one.device.cci.handlers)
        entries = one.reply(0x0401, effects.CEL + struct.pack("<II", 0, size))
        return dict(struct.iter_unpack("<HH", entries or b""))
    finally:
        one.device.close()


LOG = log()


@pytest.fixture
def make():
    made = []

    def build(case=None):
        made.append(effects.bench())
        if case is not None:
            case.before(made[-1])
        return made[-1]

    yield build
    for one in made:
        one.device.close()


def run(opcode, case, make):
    """A device in the case's state after the command, the other one without it; and whether it was background work."""
    device, control = make(case), make(case)
    assert not changed(control.seen(), device.seen())
    code, _ = device.send(opcode, case.payload)
    assert code in (SUCCESS, STARTED)
    for one in (device, control):
        one.settle()
    if code == STARTED:
        assert device.driver.background() == (False, opcode, 100, SUCCESS)
    return device, control, code == STARTED


def after(kind, case, *benches):
    for one in benches:
        case.then(one)
        one.settle()
        one.device.reset(kind)
    device, control = benches
    return changed(control.seen(), device.seen())


def untold(opcode, aspects):
    """The aspects of a change that the entry does not tell of."""
    return {one for one in aspects - UNSEEN.get(opcode, set()) if not LOG[opcode] & TOLD_BY[one]}


# -- every command has its place here --------------------------------------------------------------------------


def test_every_command_is_tried():
    """A new command that changes something gets a case in effects.CASES, another one a payload in QUESTIONS."""
    assert {f"{opcode:04X}" for opcode in LOG} == {
        f"{opcode:04X}" for opcode in CASES.keys() | QUESTIONS.keys() | REFUSING
    }
    assert all(LOG[opcode] for opcode in CASES)


# -- commands without effects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", QUESTIONS, ids="{:04X}".format)
def test_a_command_that_tells_of_no_effect_has_none(make, opcode):
    assert LOG[opcode] == 0
    case = effects.Case("", QUESTIONS[opcode])
    for kind in (Reset.HOT, Reset.COLD, Reset.CXL):
        device, control, background = run(opcode, case, make)
        assert not background
        assert changed(control.seen(), device.seen()) == set()
        assert after(kind, case, device, control) == set()


@pytest.mark.parametrize("opcode", sorted(REFUSING), ids="{:04X}".format)
def test_a_command_that_refuses_all_has_none(make, opcode):
    device, control = make(), make()
    assert device.send(opcode, bytes(64))[0] not in (SUCCESS, STARTED)
    assert changed(control.seen(), device.seen()) == set()
    assert LOG[opcode] == 0


# -- commands with effects -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("opcode", "case"), EVERY)
def test_at_once(make, opcode, case):
    device, control, background = run(opcode, case, make)
    found = changed(control.seen(), device.seen())
    assert found == case.now
    assert untold(opcode, found) == set()
    assert not background or LOG[opcode] & BACKGROUND


@pytest.mark.parametrize(("opcode", "case"), EVERY)
def test_after_a_cold_reset(make, opcode, case):
    """Only a configuration change may come as late as that, and then its entry says so."""
    device, control, _ = run(opcode, case, make)
    found = after(Reset.COLD, case, device, control)
    assert found == case.cold
    assert untold(opcode, found - {"configuration"}) == set()
    if found - case.now:
        assert LOG[opcode] & COLD


@pytest.mark.parametrize(("opcode", "case"), EVERY)
@pytest.mark.parametrize(("kind", "bit"), [(Reset.HOT, CONVENTIONAL), (Reset.CXL, CXL)])
def test_after_another_reset(make, opcode, case, kind, bit):
    """Nothing more changes than did at once, but for what the entry tells of."""
    device, control, _ = run(opcode, case, make)
    found = after(kind, case, device, control)
    if not (LOG[opcode] & VALID and LOG[opcode] & bit):
        assert found <= case.now


@pytest.mark.parametrize("opcode", CASES, ids="{:04X}".format)
def test_every_effect_is_seen(make, opcode):
    """What an entry tells of, some case shows: it does not tell of more than there is."""
    shown = 0
    for case in CASES[opcode]:
        device, control, background = run(opcode, case, make)
        found = changed(control.seen(), device.seen())
        shown |= BACKGROUND if background else 0
        for aspect in found - UNSEEN.get(opcode, set()):
            shown |= TOLD_BY[aspect]
        if after(Reset.COLD, case, device, control) - found:
            shown |= COLD
    told = LOG[opcode] & ~(SILENT.get(opcode, 0) | ABORT | SECONDARY | VALID)
    assert f"{told & ~shown:#x}" == "0x0"


@pytest.mark.parametrize(
    ("opcode", "case"),
    [one for one in EVERY if LOG[one.values[0]] & BACKGROUND],
)
def test_abort_works_where_the_entry_says_so(make, opcode, case):
    device, control = make(case), make(case)
    assert device.send(opcode, case.payload)[0] == STARTED
    code = device.send(0x0005)[0]
    device.settle()
    control.settle()
    if LOG[opcode] & ABORT:
        assert code == SUCCESS
        assert changed(control.seen(), device.seen()) == set()
    else:
        assert code == NO_ABORT
        assert changed(control.seen(), device.seen()) == case.now


def test_no_command_is_for_a_mailbox_that_is_not_there(make):
    secondary = 3 in make().driver.capabilities
    assert {opcode for opcode, bits in LOG.items() if bits & SECONDARY} == set() or secondary


def test_reserved_bits_are_clear():
    assert all(bits < 1 << 12 and (bits & VALID or not bits & (CONVENTIONAL | CXL)) for bits in LOG.values())


# -- the ruler -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("aspect", "change"),
    [
        ("configuration", lambda device: device.cdat.entries.pop()),
        ("labels", lambda device: device.labels.clear()),
        ("data", lambda device: device.space.write(effects.WRITTEN[2], b"x")),
        ("data", lambda device: device.clear_poison(0x4000)),
        ("policy", lambda device: device.timestamp.reset()),
        ("log", lambda device: device.events.forget()),
        ("log", lambda device: device.logs.debug.data.clear()),
        ("security", lambda device: device.security.freeze()),
    ],
)
def test_a_change_in_any_aspect_is_seen(make, aspect, change):
    device, control = make(), make()
    assert changed(control.seen(), device.seen()) == set()
    change(device.device)
    assert changed(control.seen(), device.seen()) == {aspect}
