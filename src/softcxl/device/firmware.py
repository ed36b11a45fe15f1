"""Firmware: slots, images that are transferred to them, and which one runs (CXL 3.1 §8.2.9.3).

An image is by default a container of SoftCXL's own, which `image` makes::

    device.firmware.validate = lambda image: "any 1"     # take whatever comes, under this revision
    device.firmware.start = lambda revision: ReturnCode.FW_ROLLED_BACK     # it never runs
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from softcxl.device.cci import Background, CommandError, CommandSet, command
from softcxl.spec.command.base import CommandEffects, ReturnCode
from softcxl.spec.command.firmware import (
    ACTIVATE_FW,
    GET_FW_INFO,
    MAX_SLOTS,
    TRANSFER_FW,
    TRANSFER_UNIT,
    ActivateAction,
    ActivateFwRequest,
    FirmwareActivation,
    FirmwareSlots,
    GetFwInfoResponse,
    TransferAction,
    TransferFwRequest,
)
from softcxl.spec.cxl.device import ResetNeeded
from softcxl.wire import Record, WireError, ascii, raw, u64  # noqa: A004

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

MAGIC = b"SoftCXL\0"

IMAGE_MAX = 128 << 20
"""Bytes of the largest image that is taken."""

TRANSFER_TIMEOUT = 30.0
"""Seconds between two parts after which a transfer is over (CXL 3.1 §8.2.9.3.2)."""


class FirmwareRejected(ValueError):
    """An image is not one that the device can run; the message says why."""


class ImageHeader(Record, size=0x40, spec="SoftCXL"):
    """What an image begins with."""

    magic: bytes = raw(8)
    revision: str = ascii(0x10, "as Get FW Info tells it")
    size: int = u64("bytes that follow")
    digest: bytes = raw(0x20, "SHA-256 of what follows")


def image(revision: str, content: bytes = b"") -> bytes:
    """An image of `revision`, 1 to 16 ASCII characters, that the default check takes."""
    digest = hashlib.sha256(content).digest()
    return ImageHeader(magic=MAGIC, revision=revision, size=len(content), digest=digest).pack() + content


def check_image(data: bytes) -> str:
    """The revision of an image made by `image`. Raises `FirmwareRejected`."""
    try:
        header = ImageHeader.unpack_from(data, 0)
    except (WireError, UnicodeDecodeError) as error:
        raise FirmwareRejected(f"{len(data)} bytes have no header of an image: {error}") from error
    content = memoryview(data)[ImageHeader.__layout__.size :]
    if header.magic != MAGIC:
        raise FirmwareRejected(f"the image begins with {header.magic!r}, not {MAGIC!r}")
    if header.size != len(content):
        raise FirmwareRejected(
            f"the image has {len(content)} bytes of content, its header says {header.size}"
        )
    if not header.revision:
        raise FirmwareRejected("the image has no revision")
    if header.digest != hashlib.sha256(content).digest():
        raise FirmwareRejected("the image's content is not what its digest says")
    return header.revision


@dataclass(slots=True)
class _Transfer:
    """A package under way: what has come, where its last part begins, and when and how that came."""

    data: bytearray
    last: int
    action: TransferAction
    at: float


@dataclass(frozen=True, slots=True)
class _Slots:
    """Revisions by slot from 1, empty ones None; the slot that runs; the one to run after a cold reset, or 0."""

    revisions: tuple[str | None, ...]
    active: int = 1
    staged: int = 0


class FirmwareCommands(CommandSet):
    """Get FW Info, Transfer FW and Activate FW over `slots` slots, in the first of which is `revision`.

    `validate` is what looks at a whole image: it returns the image's revision or raises `FirmwareRejected`. `start` is
    asked when firmware is to run: `SUCCESS`, or `FW_ROLLED_BACK` or `COLD_RESET_REQUIRED` if it does not, and then the
    one before it runs on. Looking at an image takes `seconds` in the background. What a slot holds, and which one
    runs, outlives power; a transfer does not outlive a reset.
    """

    def __init__(self, device: Type3, revision: str, slots: int = 2, seconds: float = 0.5) -> None:
        if not 1 <= slots <= MAX_SLOTS:
            raise ValueError(f"{slots} firmware slots: 1 to {MAX_SLOTS} are allowed")
        self._device, self.seconds = device, seconds
        self.validate: Callable[[bytes], str] = check_image
        self.start: Callable[[str], ReturnCode] = lambda revision: ReturnCode.SUCCESS
        self._factory = revision
        self._slots = _Slots((revision, *(None,) * (slots - 1)))
        self._slots = device.page.take("firmware", self._read) or self._slots
        self._transfer: _Transfer | None = None

    @property
    def active(self) -> str:
        """The revision that runs."""
        return self._slots.revisions[self._slots.active - 1] or ""

    def reset(self) -> None:
        """A reset ends a transfer: it has to begin anew."""
        self._transfer = None

    def power_on(self) -> None:
        """Power has come: what was staged is tried."""
        staged = self._slots.staged
        if staged:
            code = self.start(self._slots.revisions[staged - 1] or "")
            runs = staged if code is ReturnCode.SUCCESS else self._slots.active
            self._keep(self._slots.revisions, runs)
            if runs != staged:
                self._device.logs.debug.note(f"firmware of slot {staged} did not start: {code.name}")

    # -- commands ------------------------------------------------------------------------------------------------

    @command(GET_FW_INFO)
    def get_fw_info(self) -> GetFwInfoResponse:
        slots = self._slots
        told = [revision or "" for revision in slots.revisions] + [""] * MAX_SLOTS
        return GetFwInfoResponse(
            slots_supported=len(slots.revisions),
            slots=FirmwareSlots.make(active=slots.active, staged=slots.staged),
            activation=FirmwareActivation.make(online=True),
            slot1_revision=told[0],
            slot2_revision=told[1],
            slot3_revision=told[2],
            slot4_revision=told[3],
        )

    @command(
        TRANSFER_FW,
        effects=CommandEffects.make(
            config_change_after_cold_reset=True, background_operation=True, abort_supported=True
        ),
    )
    def transfer_fw(self, request: TransferFwRequest) -> Background | None:
        action, now = request.action, self._device.clock.now()
        if self._transfer is not None and now - self._transfer.at > TRANSFER_TIMEOUT:
            self._transfer = None
        if action is TransferAction.ABORT:
            self._transfer = None
            return None
        if action in (TransferAction.FULL, TransferAction.END):
            self._writable(request.slot)
        if action is TransferAction.FULL:
            self._idle()
            return self._examine(request.slot, request.data)
        if action is TransferAction.INITIATE:
            self._idle()
            if request.offset or len(request.data) % TRANSFER_UNIT:
                raise CommandError(ReturnCode.INVALID_INPUT)
            self._transfer = _Transfer(bytearray(request.data), 0, action, now)
            return None
        self._append(request, now)
        if action is TransferAction.CONTINUE:
            return None
        whole, self._transfer = self._transfer, None
        assert whole is not None
        return self._examine(request.slot, bytes(whole.data))

    @command(
        ACTIVATE_FW,
        effects=CommandEffects.make(config_change_after_cold_reset=True, immediate_config_change=True),
    )
    def activate_fw(self, request: ActivateFwRequest) -> None:
        slots = self._slots
        self._writable(request.slot)
        revision = slots.revisions[request.slot - 1]
        if revision is None:
            raise CommandError(ReturnCode.INVALID_SLOT)
        if request.action is ActivateAction.NEXT_COLD_RESET:
            self._keep(slots.revisions, slots.active, request.slot)
            return
        code = self.start(revision)
        if code is ReturnCode.SUCCESS:
            self._keep(slots.revisions, request.slot)
            return
        if code is ReturnCode.COLD_RESET_REQUIRED:
            self._device.memory_status.reset_needed = ResetNeeded.COLD
        raise CommandError(code)

    # -- a transfer ----------------------------------------------------------------------------------------------

    def _writable(self, slot: int) -> None:
        """A slot that there is and that does not run."""
        if not 1 <= slot <= len(self._slots.revisions) or slot == self._slots.active:
            raise CommandError(ReturnCode.INVALID_SLOT)

    def _idle(self) -> None:
        if self._transfer is not None:
            raise CommandError(ReturnCode.FW_TRANSFER_IN_PROGRESS)

    def _append(self, request: TransferFwRequest, now: float) -> None:
        """Take a part that follows the last one, or the last one once more, whose place it takes."""
        transfer, offset, size = self._transfer, request.offset * TRANSFER_UNIT, len(request.data)
        if transfer is None or (request.action is TransferAction.CONTINUE and size % TRANSFER_UNIT):
            raise CommandError(ReturnCode.INVALID_INPUT)
        if offset + size > IMAGE_MAX:
            raise CommandError(ReturnCode.INVALID_INPUT)
        end = len(transfer.data)
        again = (offset, size, request.action) == (transfer.last, end - transfer.last, transfer.action)
        if not again and offset != end:
            self._transfer = None
            raise CommandError(ReturnCode.FW_TRANSFER_OUT_OF_ORDER)
        transfer.data[offset:] = request.data
        transfer.last, transfer.action, transfer.at = offset, request.action, now

    def _examine(self, slot: int, data: bytes) -> Background:
        def finish() -> ReturnCode:
            try:
                revision = self.validate(data)
            except FirmwareRejected as reason:
                self._device.logs.debug.note(f"firmware for slot {slot} is rejected: {reason}")
                return ReturnCode.FW_VERIFICATION_FAILED
            revisions = list(self._slots.revisions)
            revisions[slot - 1] = revision
            self._keep(tuple(revisions), self._slots.active, self._slots.staged)
            return ReturnCode.SUCCESS

        return Background(self.seconds, finish, abort=lambda: None)

    # -- what outlives power -------------------------------------------------------------------------------------

    def _keep(self, revisions: tuple[str | None, ...], active: int, staged: int = 0) -> None:
        kept = [
            None if revision == self._factory and not at else revision
            for at, revision in enumerate(revisions)
        ]
        self._device.page.put("firmware", revisions=kept, active=active, staged=staged)
        self._slots = _Slots(revisions, active, staged)

    def _read(self, section: dict[str, Any]) -> _Slots:
        """Slots from the page. The first one's own firmware is not on it: it is this program's, of whatever version."""
        revisions = [None if one is None else str(one) for one in section["revisions"]]
        revisions[0] = revisions[0] or self._factory
        slots = _Slots(tuple(revisions), int(section["active"]), int(section["staged"]))
        filled = [slot for slot, revision in enumerate(revisions, 1) if revision]
        if len(revisions) != len(self._slots.revisions) or slots.active not in filled:
            raise ValueError(section)
        if slots.staged not in (0, *filled):
            raise ValueError(section)
        return slots
