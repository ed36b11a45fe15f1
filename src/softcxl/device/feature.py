"""Features: settings known by UUID, with a current, a default and a saved value (CXL 3.1 §8.2.9.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any
from uuid import UUID

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.spec.command.base import Command, CommandEffects, ReturnCode
from softcxl.spec.command.features import (
    GET_FEATURE,
    GET_SUPPORTED_FEATURES,
    SET_FEATURE,
    FeatureAttributes,
    FeatureSelection,
    FeatureTransfer,
    GetFeatureRequest,
    GetFeatureResponse,
    GetSupportedFeaturesRequest,
    GetSupportedFeaturesResponse,
    SetFeatureRequest,
    SupportedFeature,
)
from softcxl.wire import Reset

if TYPE_CHECKING:
    from softcxl.device.persist import StatePage

COLD_RESET = 4
"""Deepest Reset Persistence of a value that lives through every reset once it is saved."""
AT_ONCE = CommandEffects.make(immediate_config_change=True, reset_effects_valid=True)
AFTER_RESET = CommandEffects.make(reset_effects_valid=True, config_change_after_conventional_reset=True)
AFTER_COLD_RESET = CommandEffects.make(reset_effects_valid=True, config_change_after_cold_reset=True)


class Feature:
    """One feature: what Set Feature takes are its writable attributes, `default` at first; what Get Feature returns is
    what `readable` makes of them. Without `changeable` it is only read. `effects` say whether a change counts at once
    or after a reset.

    A subclass refuses a value in `check`, and does what a new one means in `changed`.
    """

    def __init__(
        self,
        identifier: UUID,
        default: bytes,
        *,
        version: int = 1,
        effects: CommandEffects = AT_ONCE,
        changeable: bool = True,
    ) -> None:
        self.identifier, self.default, self.version = identifier, default, version
        self.effects, self.changeable = effects, changeable
        self.value = default
        self.saved: bytes | None = None
        self.pending: bytes | None = None  # counts after a reset

    def readable(self, value: bytes) -> bytes:
        """What Get Feature returns of writable attributes."""
        return value

    def check(self, value: bytes) -> bytes:
        """The writable attributes that become of `value`. Raises `CommandError`."""
        return value

    def changed(self) -> None:
        """`value` is another one, or has been written again. The function's lock is held."""

    @property
    def immediate(self) -> bool:
        """A change counts at once."""
        effects = self.effects
        return not (effects.config_change_after_conventional_reset or effects.config_change_after_cold_reset)

    def set(self, value: bytes, *, save: bool) -> None:
        """Take a checked value. `save`: over resets too."""
        if save:
            self.saved = value
        if self.immediate:
            self.pending, self.value = None, value
            self.changed()
        else:
            self.pending = value

    def reset(self, kind: Reset) -> None:
        """A conventional reset: what waits for it counts, else what was saved, else the default."""
        after_any = self.immediate or self.effects.config_change_after_conventional_reset
        if kind is not Reset.COLD and not after_any:
            return
        if self.pending is not None:
            self.value, self.pending = self.pending, None
        else:
            self.value = self.default if self.saved is None else self.saved
        self.changed()

    def entry(self, index: int) -> SupportedFeature:
        """How the list of features tells of it."""
        return SupportedFeature(
            identifier=self.identifier,
            index=index,
            get_size=len(self.readable(self.value)),
            set_size=len(self.default) if self.changeable else 0,
            attributes=FeatureAttributes.make(
                changeable=self.changeable,
                deepest_reset_persistence=COLD_RESET if self.changeable else 0,
                persists_over_fw_update=True,
                default_selection_supported=True,
                saved_selection_supported=self.changeable,
            ),
            get_version=self.version,
            set_version=self.version,
            set_effects=self.effects if self.changeable else CommandEffects(),
        )


class VendorFeature(Feature):
    """A feature that means nothing to the device: bytes to be set and read, in which the bits of `mask` can change."""

    def __init__(
        self, identifier: UUID, default: bytes, *, mask: bytes, version: int, effects: CommandEffects
    ) -> None:
        super().__init__(identifier, default, version=version, effects=effects, changeable=any(mask))
        self.mask = mask

    def check(self, value: bytes) -> bytes:
        """Bits that cannot change stay, whatever they are set to."""
        return bytes(
            was & ~mask | new & mask for was, new, mask in zip(self.default, value, self.mask, strict=True)
        )


@dataclass(slots=True)
class Transfer:
    """A value that is set in parts: writable attributes with what has come of them, and where the next part begins."""

    feature: Feature
    value: bytearray
    next_offset: int


class FeatureCommands(CommandSet):
    """Get Supported Features, Get Feature and Set Feature, over `features` in the order of their indexes.

    Saved values are kept in `page`.
    """

    def __init__(self, features: Iterable[Feature], page: StatePage, payload_max: int) -> None:
        self.features = {one.identifier: one for one in features}
        self.transfer: Transfer | None = None
        self._page, self._payload_max = page, payload_max
        page.take("features", self._restore)

    def __getitem__(self, identifier: UUID) -> Feature:
        return self.features[identifier]

    def reset(self, kind: Reset) -> None:
        """A conventional reset. The function's lock is held."""
        self.transfer = None
        for one in self.features.values():
            one.reset(kind)

    def commands(self) -> Iterator[tuple[Command, Callable[..., Any]]]:
        """Set Feature has the effects that some feature has."""
        effects = [one.effects for one in self.features.values() if one.changeable]
        union = CommandEffects(reduce(lambda some, more: some | int(more), effects, 0))
        for declared, handler in super().commands():
            yield (replace(declared, effects=union) if declared is SET_FEATURE else declared), handler

    # -- commands ------------------------------------------------------------------------------------------------

    @command(GET_SUPPORTED_FEATURES)
    def get_supported_features(self, request: GetSupportedFeaturesRequest) -> GetSupportedFeaturesResponse:
        header, size = GetSupportedFeaturesResponse.__layout__.size, SupportedFeature.__layout__.size
        if request.count < header or request.starting_index >= len(self.features):
            raise CommandError(ReturnCode.INVALID_INPUT)
        room = (min(request.count, self._payload_max) - header) // size
        entries = [one.entry(index) for index, one in enumerate(self.features.values())]
        told = entries[request.starting_index :][:room]
        return GetSupportedFeaturesResponse(count=len(told), total=len(entries), features=told)

    @command(GET_FEATURE)
    def get_feature(self, request: GetFeatureRequest) -> GetFeatureResponse:
        """Where less is left than was asked for, that."""
        feature = self._known(request.identifier)
        if self.transfer is not None and self.transfer.feature is feature:
            raise CommandError(ReturnCode.FEATURE_TRANSFER_IN_PROGRESS)
        match request.selection:
            case FeatureSelection.CURRENT:
                value = feature.value
            case FeatureSelection.DEFAULT:
                value = feature.default
            case FeatureSelection.SAVED if feature.changeable:
                value = feature.default if feature.saved is None else feature.saved
            case _:
                raise CommandError(ReturnCode.UNSUPPORTED_FEATURE_SELECTION)
        data = feature.readable(value)
        if request.count > self._payload_max or request.offset >= len(data):
            raise CommandError(ReturnCode.INVALID_INPUT)
        return GetFeatureResponse(data=data[request.offset : request.offset + request.count])

    @command(SET_FEATURE)
    def set_feature(self, request: SetFeatureRequest) -> None:
        feature, under_way = self._known(request.identifier), self.transfer
        try:
            step = FeatureTransfer(int(request.flags) & 7)
        except ValueError:
            raise CommandError(ReturnCode.INVALID_INPUT) from None
        if not feature.changeable:
            raise CommandError(ReturnCode.UNSUPPORTED)
        if request.version != feature.version:
            raise CommandError(ReturnCode.UNSUPPORTED_FEATURE_VERSION)
        if under_way is not None and under_way.feature is not feature:
            raise CommandError(ReturnCode.FEATURE_TRANSFER_IN_PROGRESS)
        if step is FeatureTransfer.ABORT:
            self._expect(under_way is not None)
            self.transfer = None
            return
        end = request.offset + len(request.data)
        if step in (FeatureTransfer.FULL, FeatureTransfer.INITIATE):
            self._expect(under_way is None or step is FeatureTransfer.INITIATE)
            under_way = Transfer(feature, bytearray(self._latest(feature)), request.offset)
        self._expect(under_way is not None and under_way.next_offset == request.offset)
        if not request.data or end > len(feature.default):
            raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH)
        assert under_way is not None, "expected above"
        value = bytearray(under_way.value)
        value[request.offset : end] = request.data
        if step in (FeatureTransfer.FULL, FeatureTransfer.FINISH):
            whole, save = feature.check(bytes(value)), request.flags.saved_across_reset
            if save:
                self._keep(feature, whole)
            feature.set(whole, save=save)
            self.transfer = None
        else:
            self.transfer = Transfer(feature, value, end)

    def _expect(self, in_order: bool) -> None:
        """A part out of order ends the transfer."""
        if not in_order:
            self.transfer = None
            raise CommandError(ReturnCode.FEATURE_TRANSFER_OUT_OF_ORDER)

    def _known(self, identifier: UUID) -> Feature:
        feature = self.features.get(identifier)
        if feature is None:
            raise CommandError(ReturnCode.UNSUPPORTED)
        return feature

    @staticmethod
    def _latest(feature: Feature) -> bytes:
        return feature.value if feature.pending is None else feature.pending

    # -- what is kept --------------------------------------------------------------------------------------------

    def _keep(self, feature: Feature, value: bytes) -> None:
        saved = {one.identifier: one.saved for one in self.features.values() if one.saved is not None}
        saved[feature.identifier] = value
        self._page.put("features", **{str(name): data.hex() for name, data in saved.items()})

    def _restore(self, section: dict[str, Any]) -> None:
        """Values of features that are no more, or have another size now, are forgotten."""
        for name, data in section.items():
            feature, value = self.features.get(UUID(name)), bytes.fromhex(data)
            if feature is not None and feature.changeable and len(value) == len(feature.default):
                feature.value = feature.saved = value
