"""Security states: what a passphrase locks, for how long, and who may change that.

The second source for what the standard leaves open is the Linux mock device (tools/testing/cxl/test/mem.c), and for
what an erasure leaves `ndctl sanitize-dimm` (Documentation/ndctl).
"""

import struct

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from softcxl.device.clock import ManualClock
from softcxl.device.persist import StateDamaged
from softcxl.device.security import SecurityCommands
from softcxl.device.type3 import Type3
from softcxl.spec.command.media import SANITIZE, SECURE_ERASE
from softcxl.spec.command.security import (
    DISABLE_PASSPHRASE,
    FREEZE_SECURITY_STATE,
    GET_SECURITY_STATE,
    PASSPHRASE_SECURE_ERASE,
    SET_PASSPHRASE,
    UNLOCK,
)
from softcxl.testing.driver import Driver
from softcxl.wire import Reset
from tests.device.conftest import MIB

SUCCESS, INPUT, INTERNAL, DISABLED, SECURITY, PASSPHRASE = 0, 2, 4, 7, 0x13, 0x14
USER_SET, MASTER_SET, LOCKED, FROZEN, USER_LIMIT, MASTER_LIMIT = 1, 2, 4, 8, 16, 32
MASTER, USER = 0, 1
PERSISTENT = 256 * MIB
ONE, TWO, NONE = b"1" * 32, b"2" * 32, bytes(32)


class Owner:
    """Who knows the passphrases: each call is one command, its answer the return code."""

    def __init__(self, device):
        self.driver = Driver(device)

    def state(self):
        code, payload = self.driver.send(GET_SECURITY_STATE.opcode)
        assert code == SUCCESS
        return struct.unpack("<I", payload)[0]

    def set(self, old, new, kind=USER):
        return self._code(SET_PASSPHRASE, bytes([kind]) + bytes(31) + old + new)

    def disable(self, passphrase, kind=USER):
        return self._code(DISABLE_PASSPHRASE, bytes([kind]) + bytes(31) + passphrase)

    def unlock(self, passphrase):
        return self._code(UNLOCK, passphrase)

    def freeze(self):
        return self._code(FREEZE_SECURITY_STATE, b"")

    def erase(self, passphrase, kind=USER):
        return self._code(PASSPHRASE_SECURE_ERASE, bytes([kind]) + bytes(31) + passphrase)

    def _code(self, command, payload):
        code, reply = self.driver.send(command.opcode, payload)
        assert reply == b""
        return code


@pytest.fixture
def owner(device):
    return Owner(device)


@pytest.fixture
def locked(device, owner):
    """A device that has come up with a user passphrase, ONE."""
    device.space.write(0, b"volatile")
    device.space.write(PERSISTENT, b"secret")
    owner.driver.send(0x4103, bytes(8) + b"label")
    assert owner.set(NONE, ONE) == SUCCESS
    device.reset(Reset.COLD)
    return device


def test_the_life_of_a_passphrase(device, owner):
    assert owner.state() == 0
    assert owner.set(NONE, ONE) == SUCCESS
    assert owner.state() == USER_SET
    assert owner.set(TWO, TWO) == PASSPHRASE
    assert owner.set(ONE, TWO) == SUCCESS
    assert owner.disable(ONE) == PASSPHRASE
    assert owner.disable(TWO) == SUCCESS
    assert owner.state() == 0
    assert owner.disable(TWO) == owner.unlock(TWO) == SECURITY
    # Where none is set, the current passphrase is ignored.
    assert owner.set(TWO, ONE) == SUCCESS


def test_locked_from_a_cold_reset_until_unlocked(device, owner):
    owner.set(NONE, ONE)
    for kind in (Reset.FLR, Reset.HOT):
        device.reset(kind)
        assert owner.state() == USER_SET
    device.reset(Reset.COLD)
    assert owner.state() == USER_SET | LOCKED
    device.reset(Reset.HOT)
    assert owner.state() == USER_SET | LOCKED
    assert owner.set(ONE, TWO) == SECURITY
    assert owner.unlock(TWO) == PASSPHRASE
    assert owner.unlock(ONE) == SUCCESS
    assert owner.state() == USER_SET
    assert owner.unlock(ONE) == SECURITY


def test_what_locked_refuses(locked, owner):
    send = owner.driver.send
    labels = struct.pack("<II", 0, 5)
    persistent = struct.pack("<Q", PERSISTENT)
    assert send(0x4102, labels) == (DISABLED, b"")
    assert send(0x4103, bytes(8) + b"other") == (DISABLED, b"")
    assert send(0x4301, persistent) == send(0x4302, persistent + b"x" * 64) == (DISABLED, b"")
    assert send(0x4301, bytes(8))[0] == SUCCESS  # the volatile capacity is there
    assert send(SANITIZE.opcode) == send(SECURE_ERASE.opcode) == (SECURITY, b"")
    for opcode in (0x0100, 0x0401, 0x4000, 0x4100, 0x4200, 0x4203):
        payload = {0x0100: b"\0", 0x0401: bytes(24)}.get(opcode, b"")
        assert send(opcode, payload)[0] not in (DISABLED, SECURITY), hex(opcode)
    owner.unlock(ONE)
    assert send(0x4102, labels) == (SUCCESS, b"label")
    assert locked.space.read(PERSISTENT, 6) == b"secret"
    assert send(SANITIZE.opcode) == (SECURITY, b"")  # security is to be disabled for it, not only unlocked
    assert send(SECURE_ERASE.opcode) == (SUCCESS, b"")
    assert locked.space.read(PERSISTENT, 6) == bytes(6)


def test_disabling_the_passphrase_of_a_locked_device_unlocks_it(locked, owner):
    assert owner.disable(ONE) == SUCCESS
    assert owner.state() == 0
    assert owner.driver.send(0x4102, struct.pack("<II", 0, 5)) == (SUCCESS, b"label")


def test_frozen_until_a_cold_reset(device, owner):
    owner.set(NONE, ONE)
    assert owner.freeze() == owner.freeze() == SUCCESS
    assert owner.state() == USER_SET | FROZEN
    assert owner.set(ONE, TWO) == owner.disable(ONE) == owner.unlock(ONE) == owner.erase(ONE) == SECURITY
    device.reset(Reset.HOT)
    assert owner.state() == USER_SET | FROZEN
    device.reset(Reset.COLD)
    assert owner.state() == USER_SET | LOCKED


def test_attempts_are_counted_by_kind(device, owner):
    """The mock device's limit is 3, too; a right passphrase starts the count again."""
    owner.set(NONE, TWO, MASTER)
    owner.set(NONE, ONE)
    assert owner.set(TWO, TWO) == owner.erase(TWO) == PASSPHRASE
    assert owner.set(ONE, ONE) == SUCCESS
    assert owner.set(TWO, TWO) == owner.disable(TWO) == PASSPHRASE
    assert owner.state() == USER_SET | MASTER_SET
    assert owner.erase(TWO) == PASSPHRASE
    assert owner.state() == USER_SET | MASTER_SET | USER_LIMIT
    assert owner.set(ONE, ONE) == owner.disable(ONE) == owner.erase(ONE) == SECURITY
    for _ in range(3):
        assert owner.erase(ONE, MASTER) == PASSPHRASE
    assert owner.state() == USER_SET | MASTER_SET | USER_LIMIT | MASTER_LIMIT
    assert owner.erase(TWO, MASTER) == SECURITY
    device.reset(Reset.HOT)
    assert owner.state() == USER_SET | MASTER_SET | USER_LIMIT | MASTER_LIMIT
    device.reset(Reset.COLD)
    assert owner.state() == USER_SET | MASTER_SET | LOCKED
    assert owner.unlock(ONE) == SUCCESS


def test_the_master_passphrase_is_set_before_the_users(device, owner):
    assert owner.set(NONE, TWO, MASTER) == SUCCESS
    assert owner.state() == MASTER_SET
    owner.set(NONE, ONE)
    assert owner.set(TWO, ONE, MASTER) == SECURITY
    assert owner.unlock(TWO) == SECURITY
    assert owner.disable(TWO, MASTER) == SUCCESS
    assert owner.erase(TWO, MASTER) == INPUT
    assert owner.disable(TWO, MASTER) == SECURITY


@pytest.mark.parametrize("kind", [USER, MASTER])
def test_passphrase_secure_erase(device, owner, kind):
    """The data and the user passphrase go; labels stay (`ndctl sanitize-dimm --crypto-erase`), and volatile memory."""
    owner.set(NONE, TWO, MASTER)
    owner.set(NONE, ONE)
    owner.driver.send(0x4103, bytes(8) + b"label")
    device.space.write(PERSISTENT, b"secret")
    device.reset(Reset.COLD)
    device.space.write(0, b"volatile")
    assert owner.erase(NONE, kind) == PASSPHRASE
    assert device.space.read(PERSISTENT, 6) == b"secret"
    assert owner.erase({USER: ONE, MASTER: TWO}[kind], kind) == SUCCESS
    assert owner.state() == MASTER_SET
    assert device.space.read(PERSISTENT, 6) == bytes(6)
    assert device.space.read(0, 8) == b"volatile"
    assert owner.driver.send(0x4102, struct.pack("<II", 0, 5)) == (SUCCESS, b"label")


def test_erase_without_a_passphrase_is_erase(device, owner):
    device.space.write(PERSISTENT, b"secret")
    assert owner.erase(ONE) == SUCCESS
    assert device.space.read(PERSISTENT, 6) == bytes(6)


def test_no_such_kind_of_passphrase(device, owner):
    for kind in (2, 0xFF):
        assert owner.set(NONE, ONE, kind) == owner.disable(ONE, kind) == owner.erase(ONE, kind) == INPUT
    assert owner.state() == 0


# -- over the end of the process -----------------------------------------------------------------------------


def test_passphrases_outlive_the_process(make, tmp_path):
    page = tmp_path / "mem0.state"
    device = make(state=page)
    owner = Owner(device)
    owner.set(NONE, TWO, MASTER)
    owner.set(NONE, ONE)
    owner.freeze()
    assert ONE.decode() not in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    again = Owner(make(state=page))
    assert again.state() == USER_SET | MASTER_SET | LOCKED
    assert again.unlock(ONE) == SUCCESS
    assert again.disable(ONE) == SUCCESS
    assert Owner(make(state=page)).state() == MASTER_SET


def test_a_passphrase_that_cannot_be_kept_is_not_set(make, tmp_path, caplog):
    folder = tmp_path / "gone"
    folder.mkdir()
    owner = Owner(make(state=folder / "mem0.state"))
    folder.rmdir()
    assert owner.set(NONE, ONE) == INTERNAL
    assert owner.state() == 0
    assert "command 4501h failed" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 9, "sections": {}}',
        '{"format": 1, "sections": []}',
        '{"format": 1, "sections": {"security": 1}}',
        '{"format": 1, "sections": {"security": {}}}',
        '{"format": 1, "sections": {"security": {"user": 7, "master": null}}}',
        '{"format": 1, "sections": {"security": {"user": "xyz:", "master": null}}}',
        "\xff\xfe",
    ],
)
def test_a_damaged_page_is_told_and_left(make, tmp_path, text):
    page = tmp_path / "mem0.state"
    page.write_text(text, "latin-1")
    with pytest.raises(StateDamaged, match=r"mem0\.state"):
        make(state=page)
    assert page.read_text("latin-1") == text


# -- any sequence --------------------------------------------------------------------------------------------


class Sequences(RuleBasedStateMachine):
    """Any sequence of commands and resets, beside a model that is a table of who knows what."""

    def __init__(self):
        super().__init__()
        self.device = Type3("mem0", volatile=256 * MIB, persistent=256 * MIB, clock=ManualClock())
        self.owner = Owner(self.device)
        self.kept = {USER: None, MASTER: None}
        self.wrong = {USER: 0, MASTER: 0}
        self.locked = self.frozen = False

    def teardown(self):
        self.device.close()

    kinds = st.sampled_from([USER, MASTER])
    words = st.sampled_from([ONE, TWO])

    def refused(self, kind, word):
        if self.frozen or self.wrong[kind] == 3:
            return SECURITY
        if self.kept[kind] not in (None, word):
            return PASSPHRASE
        return None

    def note(self, kind, code):
        if code == PASSPHRASE:
            self.wrong[kind] += 1
        elif code == SUCCESS:
            self.wrong[kind] = 0

    @rule(kind=kinds, old=words, new=words)
    def set(self, kind, old, new):
        expected = self.refused(kind, old)
        if expected != SECURITY and (self.locked or (kind == MASTER and self.kept[USER])):
            expected = SECURITY
        code = self.owner.set(old, new, kind)
        assert code == (expected or SUCCESS)
        self.note(kind, code)
        if code == SUCCESS:
            self.kept[kind] = new

    @rule(kind=kinds, word=words)
    def disable(self, kind, word):
        expected = SECURITY if self.kept[kind] is None else self.refused(kind, word)
        code = self.owner.disable(word, kind)
        assert code == (expected or SUCCESS)
        self.note(kind, code)
        if code == SUCCESS:
            self.kept[kind] = None
            self.locked = self.locked and kind == MASTER

    @rule(word=words)
    def unlock(self, word):
        expected = self.refused(USER, word) if self.locked else SECURITY
        code = self.owner.unlock(word)
        assert code == (expected or SUCCESS)
        self.note(USER, code)
        self.locked = self.locked and code != SUCCESS

    @rule()
    def freeze(self):
        assert self.owner.freeze() == SUCCESS
        self.frozen = True

    @rule(kind=kinds, word=words)
    def erase(self, kind, word):
        expected = self.refused(kind, word)
        if expected is None and kind == MASTER and self.kept[MASTER] is None:
            expected = INPUT
        code = self.owner.erase(word, kind)
        assert code == (expected or SUCCESS)
        self.note(kind, code)
        if code == SUCCESS:
            self.kept[USER], self.wrong[USER], self.locked = None, 0, False

    @rule(kind=st.sampled_from([Reset.FLR, Reset.HOT, Reset.COLD]))
    def reset(self, kind):
        self.device.reset(kind)
        if kind is Reset.COLD:
            self.frozen, self.wrong = False, {USER: 0, MASTER: 0}
            self.locked = self.kept[USER] is not None

    @invariant()
    def told(self):
        expected = (self.kept[USER] is not None) | (self.kept[MASTER] is not None) << 1
        expected |= self.locked << 2 | self.frozen << 3
        expected |= (self.wrong[USER] == 3) << 4 | (self.wrong[MASTER] == 3) << 5
        assert self.owner.state() == expected
        labels, _ = self.owner.driver.send(0x4102, bytes(8))
        assert (labels == DISABLED) == self.locked


def test_any_sequence():
    run_state_machine_as_test(
        Sequences,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_another_limit(device):
    device.security.attempts = 1
    owner = Owner(device)
    owner.set(NONE, ONE)
    assert isinstance(device.security, SecurityCommands)
    assert owner.disable(TWO) == PASSPHRASE
    assert owner.disable(ONE) == SECURITY
