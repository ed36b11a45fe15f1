"""Repair of media: soft and hard post package repair, and sparing of lines, rows, banks and ranks (CXL 3.2 §8.2.10.7).

A repair puts spare media in the place of faulty ones (see `softcxl.device.faults`), as long as there are any. A soft
one takes no time and ends with a reset; a hard one is carried out in the background and lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from softcxl.device.cci import Background, CommandError, CommandSet, command
from softcxl.device.faults import Fault
from softcxl.device.feature import Feature
from softcxl.device.geometry import ALL_NIBBLES, Place, Scope
from softcxl.spec.command.base import CommandEffects, ReturnCode
from softcxl.spec.command.events import EventLog
from softcxl.spec.command.features import (
    BANK_SPARING,
    CACHELINE_SPARING,
    HARD_PPR,
    RANK_SPARING,
    ROW_SPARING,
    SOFT_PPR,
)
from softcxl.spec.command.maintenance import (
    PERFORM_MAINTENANCE,
    MaintenanceClass,
    PerformMaintenanceRequest,
    PprMaintenance,
    PprSubclass,
    SparingMaintenance,
)
from softcxl.spec.cxl.events import (
    MEMORY_SPARING_EVENT,
    EventFlags,
    EventHeader,
    MemorySparingEvent,
    SpareResources,
    SparingFlags,
    SparingResult,
    SparingValidity,
)
from softcxl.spec.cxl.repair import (
    PPR_VERSION,
    SPARING_VERSION,
    MaintenanceCapabilities,
    MaintenanceMode,
    PprCapabilities,
    PprMode,
    PprReadable,
    PprRestrictions,
    PprWritable,
    SparingReadable,
    SparingRestrictions,
    SparingWritable,
)
from softcxl.wire import WireError

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

_LATENCY = {False: 0x03, True: 0x06}  # of soft and of hard repairs: 1 ms and 1 s
SPARES = {"ppr": 4, "cacheline": 16, "row": 8, "bank": 2, "rank": 1}
"""Spare resources of a device that comes new: rows for post package repair, and those of sparing."""
_POOLS = {Scope.CACHELINE: "cacheline", Scope.ROW: "row", Scope.BANK: "bank", Scope.RANK: "rank"}
SPARING = {
    Scope.CACHELINE: CACHELINE_SPARING,
    Scope.ROW: ROW_SPARING,
    Scope.BANK: BANK_SPARING,
    Scope.RANK: RANK_SPARING,
}
"""The feature of each kind of memory sparing."""


class PprFeature(Feature):
    """sPPR or hPPR: by DPA and nibble mask, while memory is in use, with the data kept."""

    def __init__(self, identifier: UUID, subclass: PprSubclass) -> None:
        super().__init__(identifier, PprWritable().pack(), version=PPR_VERSION)
        self.subclass = subclass

    def readable(self, value: bytes) -> bytes:
        written = PprWritable.unpack(value)
        return PprReadable(
            maximum_latency=_LATENCY[self.subclass is PprSubclass.HARD],
            capabilities=MaintenanceCapabilities.make(device_initiated=True),
            mode=written.mode,
            maintenance_class=MaintenanceClass.PPR,
            maintenance_subclass=self.subclass,
            ppr_capabilities=PprCapabilities.make(dpa=True, nibble_mask=True, sparing_event_record=True),
            restrictions=PprRestrictions(),
            ppr_mode=written.ppr_mode,
        ).pack()

    def check(self, value: bytes) -> bytes:
        written = PprWritable.unpack(value)
        return PprWritable(
            mode=MaintenanceMode.make(device_initiated=written.mode.device_initiated),
            ppr_mode=PprMode.make(sparing_event_record=written.ppr_mode.sparing_event_record),
        ).pack()

    @property
    def mode(self) -> PprWritable:
        return PprWritable.unpack(self.value)


class SparingFeature(Feature):
    """Memory sparing of one scope, soft and hard, while memory is in use."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(SPARING[scope], SparingWritable().pack(), version=SPARING_VERSION)
        self.scope = scope

    def readable(self, value: bytes) -> bytes:
        return SparingReadable(
            maximum_latency=_LATENCY[True],
            capabilities=MaintenanceCapabilities.make(device_initiated=True),
            mode=SparingWritable.unpack(value).mode,
            maintenance_class=MaintenanceClass.MEMORY_SPARING,
            maintenance_subclass=int(self.scope),
            restrictions=SparingRestrictions.make(hard_sparing=True, soft_sparing=True),
        ).pack()

    def check(self, value: bytes) -> bytes:
        mode = SparingWritable.unpack(value).mode
        return SparingWritable(mode=MaintenanceMode.make(device_initiated=mode.device_initiated)).pack()

    @property
    def mode(self) -> SparingWritable:
        return SparingWritable.unpack(self.value)


@dataclass(frozen=True, slots=True)
class Repair:
    """One repair: of what, with a spare from which pool, and whether it lasts. `told` by a memory sparing event."""

    scope: Scope
    place: Place
    sub_channel: int | None
    nibbles: int
    pool: str
    hard: bool
    told: bool
    maintenance_class: MaintenanceClass
    subclass: int
    by_device: bool = False


class RepairCommands(CommandSet):
    """Perform Maintenance, and the features that say how. `seconds` is how long a hard repair takes.

    `spares` are what is left of each pool of spare resources; those that hard repairs have used up stay so.
    """

    def __init__(self, device: Type3, seconds: float = 1.0) -> None:
        self._device, self.seconds = device, seconds
        self.soft_ppr, self.hard_ppr = (
            PprFeature(SOFT_PPR, PprSubclass.SOFT),
            PprFeature(HARD_PPR, PprSubclass.HARD),
        )
        self.sparing = {scope: SparingFeature(scope) for scope in Scope}
        self._used = dict.fromkeys(SPARES, 0)  # for good
        self._soft: list[tuple[Repair, list[Fault]]] = []
        device.page.take("repairs", self._restore)
        device.faults.needy = self._repair_unasked

    @property
    def features(self) -> list[Feature]:
        """The features of repair."""
        return [self.soft_ppr, self.hard_ppr, *self.sparing.values()]

    @property
    def spares(self) -> dict[str, int]:
        """How many repairs of each kind can be made."""
        taken = [repair.pool for repair, _ in self._soft]
        return {pool: count - self._used[pool] - taken.count(pool) for pool, count in SPARES.items()}

    def reset(self) -> None:
        """A conventional reset: soft repairs end. The function's lock is held."""
        ended, self._soft = self._soft, []
        for _, faults in ended:
            self._device.faults.unspare(faults)

    @command(
        PERFORM_MAINTENANCE,
        effects=CommandEffects.make(immediate_config_change=True, background_operation=True),
    )
    def perform(self, request: PerformMaintenanceRequest) -> Background | None:
        if request.maintenance_class == MaintenanceClass.PPR and request.maintenance_subclass in (0, 1):
            repair, query = self._ppr(PprSubclass(request.maintenance_subclass), request.data)
        elif request.maintenance_class == MaintenanceClass.MEMORY_SPARING and (
            request.maintenance_subclass in tuple(Scope)
        ):
            repair, query = self._sparing(Scope(request.maintenance_subclass), request.data)
        else:
            raise CommandError(ReturnCode.INVALID_INPUT)
        if query:
            self._ask(repair)
            return None
        if repair.hard:
            self._need(repair)
            return Background(self.seconds, lambda: self._carry_out(repair))
        self._carry_out(repair)
        return None

    # -- what is asked for ---------------------------------------------------------------------------------------

    def _ppr(self, subclass: PprSubclass, data: bytes) -> tuple[Repair, bool]:
        asked = _parse(PprMaintenance, data)
        if asked.dpa >= self._device.capacity.end:
            raise CommandError(ReturnCode.INVALID_PHYSICAL_ADDRESS)
        feature = self.hard_ppr if subclass is PprSubclass.HARD else self.soft_ppr
        place = self._device.faults.geometry.place(asked.dpa)
        return (
            Repair(
                Scope.ROW,
                place,
                place.sub_channel,
                asked.nibble_mask or ALL_NIBBLES,
                pool="ppr",
                hard=subclass is PprSubclass.HARD,
                told=feature.mode.ppr_mode.sparing_event_record,
                maintenance_class=MaintenanceClass.PPR,
                subclass=subclass,
            ),
            asked.flags.query_resources,
        )

    def _sparing(self, scope: Scope, data: bytes) -> tuple[Repair, bool]:
        asked = _parse(SparingMaintenance, data)
        sub_channel = asked.sub_channel if asked.flags.sub_channel_valid else None
        place = Place(
            asked.channel,
            asked.rank,
            asked.bank_group if scope < Scope.RANK else 0,
            asked.bank if scope < Scope.RANK else 0,
            asked.row if scope < Scope.BANK else 0,
            asked.column if scope < Scope.ROW else 0,
            sub_channel or 0,
        )
        if not self._device.faults.geometry.holds(place):
            raise CommandError(ReturnCode.INVALID_INPUT)
        nibbles = asked.nibble_mask if asked.flags.nibble_mask_valid else 0
        return (
            Repair(
                scope,
                place,
                sub_channel,
                nibbles or ALL_NIBBLES,
                pool=_POOLS[scope],
                hard=asked.flags.hard_sparing,
                told=True,
                maintenance_class=MaintenanceClass.MEMORY_SPARING,
                subclass=int(scope),
            ),
            asked.flags.query_resources,
        )

    # -- what is done --------------------------------------------------------------------------------------------

    def _ask(self, repair: Repair) -> None:
        self._need(repair, query=True)
        self._tell(repair, SparingResult.SUCCESS, query=True)

    def _need(self, repair: Repair, *, query: bool = False) -> None:
        if not self.spares[repair.pool]:
            self._tell(repair, SparingResult.RESOURCES_EXHAUSTED, query=query)
            raise CommandError(ReturnCode.RESOURCES_EXHAUSTED)

    def _carry_out(self, repair: Repair) -> ReturnCode:
        self._need(repair)
        if repair.hard:
            used = self._used | {repair.pool: self._used[repair.pool] + 1}
            self._device.page.put("repairs", used=used)
            self._used = used
        faults = self._device.faults
        covered = faults.covered(repair.scope, repair.place, repair.sub_channel, repair.nibbles)
        if repair.hard:  # for good, even where a soft repair has been there
            self._soft = [(one, [each for each in gone if each not in covered]) for one, gone in self._soft]
        else:
            self._soft.append((repair, [one for one in covered if not one.spared]))
        faults.spare(covered)
        self._tell(repair, SparingResult.SUCCESS)
        return ReturnCode.SUCCESS

    def _repair_unasked(self, fault: Fault) -> None:
        """Where a feature lets the device repair by itself, it does, softly."""
        sparing, ppr = self.sparing[fault.scope], self.soft_ppr.mode
        if sparing.mode.mode.device_initiated:
            pool, kind, subclass, told = (
                _POOLS[fault.scope],
                MaintenanceClass.MEMORY_SPARING,
                int(fault.scope),
                True,
            )
        elif ppr.mode.device_initiated and fault.scope <= Scope.ROW:
            pool, kind, subclass = "ppr", MaintenanceClass.PPR, int(PprSubclass.SOFT)
            told = ppr.ppr_mode.sparing_event_record
        else:
            return
        if self.spares[pool]:
            scope = Scope.ROW if kind is MaintenanceClass.PPR else fault.scope
            place, nibbles = fault.place, fault.nibbles
            self._carry_out(
                Repair(scope, place, place.sub_channel, nibbles, pool, False, told, kind, subclass, True)
            )

    def _tell(self, repair: Repair, result: SparingResult, *, query: bool = False) -> None:
        if not repair.told:
            return
        scope, place = repair.scope, repair.place
        header = EventHeader(
            identifier=MEMORY_SPARING_EVENT,
            flags=EventFlags.make(maintenance_subclass_valid=True),
            maintenance_class=repair.maintenance_class,
            maintenance_subclass=repair.subclass,
        )
        self._device.events.record(
            EventLog.INFORMATIONAL if result is SparingResult.SUCCESS else EventLog.WARNING,
            MemorySparingEvent(
                header=header,
                maintenance_class=repair.maintenance_class,
                maintenance_subclass=repair.subclass,
                flags=SparingFlags.make(
                    query_resources=query, hard_sparing=repair.hard, device_initiated=repair.by_device
                ),
                result=result,
                validity=SparingValidity.make(
                    channel=True,
                    rank=True,
                    nibble_mask=True,
                    bank_group=scope < Scope.RANK,
                    bank=scope < Scope.RANK,
                    row=scope < Scope.BANK,
                    column=scope < Scope.ROW,
                    sub_channel=repair.sub_channel is not None,
                ),
                resources_available=min(self.spares[repair.pool], SpareResources.THREE_OR_MORE),
                channel=place.channel,
                rank=place.rank,
                nibble_mask=repair.nibbles,
                bank_group=place.bank_group,
                bank=place.bank,
                row=place.row,
                column=place.column if scope < Scope.ROW else 0,
                sub_channel=place.sub_channel,
            ),
        )

    def _restore(self, section: dict[str, Any]) -> None:
        used = {pool: int(section["used"].get(pool, 0)) for pool in SPARES}
        if any(not 0 <= count <= SPARES[pool] for pool, count in used.items()):
            raise ValueError(f"{used}: there are {SPARES}")
        self._used = used


def _parse(kind: type[Any], data: bytes) -> Any:
    try:
        return kind.unpack(data)
    except WireError:
        raise CommandError(ReturnCode.INVALID_PAYLOAD_LENGTH) from None
