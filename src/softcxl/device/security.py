"""Security of persistent memory: passphrases, locking and freezing (CXL 3.1 §8.2.9.9.6).

A device with a user passphrase is locked when its power comes on, and until it is unlocked its persistent capacity
and its labels cannot be reached. What the standard leaves open follows the reading of the Linux mock device
(tools/testing/cxl/test/mem.c), where it has one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.security import (
    DISABLE_PASSPHRASE,
    FREEZE_SECURITY_STATE,
    GET_SECURITY_STATE,
    PASSPHRASE_SECURE_ERASE,
    SET_PASSPHRASE,
    UNLOCK,
    DisablePassphraseRequest,
    GetSecurityStateResponse,
    PassphraseSecureEraseRequest,
    PassphraseType,
    SecurityState,
    SetPassphraseRequest,
    UnlockRequest,
)

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

ATTEMPTS = 3
"""Wrong passphrases until no more are looked at. The standard leaves the number to the device."""

_USER, _MASTER = PassphraseType.USER, PassphraseType.MASTER


@dataclass(frozen=True, slots=True)
class Passphrase:
    """A passphrase as a device keeps it: salted and hashed."""

    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, passphrase: bytes) -> Self:
        salt = os.urandom(16)
        return cls(salt, hashlib.sha256(salt + passphrase).digest())

    @classmethod
    def read(cls, kept: str | None) -> Self | None:
        """From the text that `str` makes; None is none."""
        if kept is None:
            return None
        salt, _, digest = kept.partition(":")
        return cls(bytes.fromhex(salt), bytes.fromhex(digest))

    def __str__(self) -> str:
        return f"{self.salt.hex()}:{self.digest.hex()}"

    def matches(self, passphrase: bytes) -> bool:
        return hmac.compare_digest(self.digest, hashlib.sha256(self.salt + passphrase).digest())


class SecurityCommands(CommandSet):
    """The security state of `device`, and the commands that change it.

    Passphrases outlive power. `locked` is so from power on where there is a user passphrase, whatever happened before;
    frozen, and wrong passphrases counted, last until then. `attempts` wrong ones of a kind are the limit; a right one
    starts the count again.
    """

    def __init__(self, device: Type3, attempts: int = ATTEMPTS) -> None:
        self._device, self.attempts = device, attempts
        self._passphrases: dict[PassphraseType, Passphrase | None] = {_USER: None, _MASTER: None}
        self._passphrases |= device.page.take("security", _read) or {}
        self.power_on()

    def power_on(self) -> None:
        """Power has come: locked if there is a user passphrase."""
        self.locked = self._passphrases[_USER] is not None
        self.frozen = False
        self._wrong = {_USER: 0, _MASTER: 0}

    @property
    def state(self) -> SecurityState:
        """The state as Get Security State tells it."""
        return SecurityState.make(
            user_passphrase_set=self._passphrases[_USER] is not None,
            master_passphrase_set=self._passphrases[_MASTER] is not None,
            locked=self.locked,
            frozen=self.frozen,
            user_attempts_reached=self._wrong[_USER] >= self.attempts,
            master_attempts_reached=self._wrong[_MASTER] >= self.attempts,
        )

    def locks(self, dpa: int, size: int) -> bool:
        """Whether any of `size` bytes from `dpa` on cannot be reached because they are locked."""
        return self.locked and any(
            dpa < end and start < dpa + size for start, end in self._device.persistent_ranges
        )

    def forget(self) -> None:
        """No passphrases any more: what they protected is whoever's who has the device. Raises `OSError` where that
        cannot be kept. The lock is held."""
        for kind in PassphraseType:
            self._keep(kind, None)
        self.locked = False

    # -- commands ------------------------------------------------------------------------------------------------

    @command(GET_SECURITY_STATE)
    def get_security_state(self) -> GetSecurityStateResponse:
        return GetSecurityStateResponse(state=self.state)

    @command(SET_PASSPHRASE)
    def set_passphrase(self, request: SetPassphraseRequest) -> None:
        """The master passphrase only while there is no user passphrase; the user's not while locked."""
        kind = request.passphrase_type
        self._may_try(kind)
        if self.locked or (kind is _MASTER and self._passphrases[_USER]):
            raise CommandError(ReturnCode.INVALID_SECURITY_STATE)
        self._prove(kind, request.current_passphrase)
        self._keep(kind, Passphrase.of(request.new_passphrase))

    @command(DISABLE_PASSPHRASE)
    def disable_passphrase(self, request: DisablePassphraseRequest) -> None:
        kind = request.passphrase_type
        self._may_try(kind)
        if self._passphrases[kind] is None:
            raise CommandError(ReturnCode.INVALID_SECURITY_STATE)
        self._prove(kind, request.current_passphrase)
        self._keep(kind, None)
        if kind is _USER:
            self.locked = False

    @command(UNLOCK)
    def unlock(self, request: UnlockRequest) -> None:
        self._may_try(_USER)
        if not self.locked:
            raise CommandError(ReturnCode.INVALID_SECURITY_STATE)
        self._prove(_USER, request.current_passphrase)
        self.locked = False

    @command(FREEZE_SECURITY_STATE)
    def freeze(self) -> None:
        self.frozen = True

    @command(PASSPHRASE_SECURE_ERASE)
    def passphrase_secure_erase(self, request: PassphraseSecureEraseRequest) -> None:
        """The persistent capacity gets another key: its data are gone, labels stay, and so does what is volatile, which
        no passphrase protects and which an operating system may be using. The user passphrase goes, too."""
        kind = request.passphrase_type
        self._may_try(kind)
        if kind is _MASTER and self._passphrases[_MASTER] is None:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._prove(kind, request.current_passphrase)
        for start, end in self._device.persistent_ranges:
            self._device.space.clear(start, end - start)
        self._keep(_USER, None)
        self._wrong[_USER] = 0
        self.locked = False

    def _may_try(self, kind: PassphraseType) -> None:
        if self.frozen or self._wrong[kind] >= self.attempts:
            raise CommandError(ReturnCode.INVALID_SECURITY_STATE)

    def _prove(self, kind: PassphraseType, passphrase: bytes) -> None:
        """Refuse a wrong passphrase, and count it. Where none is set any is right."""
        kept = self._passphrases[kind]
        if kept is not None and not kept.matches(passphrase):
            self._wrong[kind] += 1
            raise CommandError(ReturnCode.INCORRECT_PASSPHRASE)
        self._wrong[kind] = 0

    def _keep(self, kind: PassphraseType, passphrase: Passphrase | None) -> None:
        changed = self._passphrases | {kind: passphrase}
        content = {one.name.lower(): kept and str(kept) for one, kept in changed.items()}
        self._device.page.put("security", **content)
        self._passphrases = changed


def _read(section: dict[str, Any]) -> dict[PassphraseType, Passphrase | None]:
    return {kind: Passphrase.read(section[kind.name.lower()]) for kind in PassphraseType}
