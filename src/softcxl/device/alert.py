"""Alerts: a condition that passes a threshold, or changes otherwise, is an event (CXL 3.1 §8.2.9.9.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.spec.command.events import EventLog
from softcxl.spec.cxl.events import (
    MEMORY_MODULE_EVENT,
    AdditionalState,
    DeviceHealth,
    EventFlags,
    EventHeader,
    MediaHealth,
    MemoryModuleEvent,
    MemoryModuleEventType,
)

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

_COUNT_MAX = (1 << 32) - 1
_LOGS = {
    AdditionalState.NORMAL: EventLog.INFORMATIONAL,
    AdditionalState.WARNING: EventLog.WARNING,
    AdditionalState.CRITICAL: EventLog.FAILURE,
}


class Alerts:
    """Watches the condition of `device`. Each change of a state that Get Health Info shows is a memory module event:
    informational where it is normal again, a warning or a failure where it has become worse."""

    def __init__(self, device: Type3) -> None:
        self._device = device
        self._known = device.health.condition()
        device.health.changed = self.look

    def look(self) -> None:
        """Log what has changed since the last look. The function's lock is held."""
        was, now = self._known, self._device.health.condition()
        self._known = now
        before, after, types = was.additional_status, now.additional_status, MemoryModuleEventType
        if after.life_used != before.life_used:
            self._tell(_LOGS[AdditionalState(after.life_used)], types.LIFE_USED_CHANGE, now)
        if after.device_temperature != before.device_temperature:
            self._tell(_LOGS[AdditionalState(after.device_temperature)], types.TEMPERATURE_CHANGE, now)
        if now.media_status != was.media_status:
            log = EventLog.INFORMATIONAL if now.media_status == MediaHealth.NORMAL else EventLog.FAILURE
            self._tell(log, types.MEDIA_STATUS_CHANGE, now)
        conditions = _conditions(was), _conditions(now)
        if conditions[0] != conditions[1]:
            worse = conditions[1] & ~conditions[0]
            log = EventLog.WARNING if worse else EventLog.INFORMATIONAL
            self._tell(log, types.HEALTH_STATUS_CHANGE, now)

    def count_corrected(self, count: int, *, volatile: bool) -> bool:
        """Count errors that were corrected; returns whether they pass the programmed threshold, which is no event yet.
        The function's lock is held."""
        health = self._device.health
        name = f"corrected_{'volatile' if volatile else 'persistent'}_error_count"
        bit = f"corrected_{'volatile' if volatile else 'persistent'}_errors"
        total = min(getattr(health.info, name) + count, _COUNT_MAX)
        before = getattr(health.condition().additional_status, bit)
        health.info = health.info.replace(**{name: total})
        condition = health.condition()
        setattr(self._known.additional_status, bit, getattr(condition.additional_status, bit))
        return bool(getattr(condition.additional_status, bit)) and not before

    def _tell(self, log: EventLog, kind: MemoryModuleEventType, health: DeviceHealth) -> None:
        status = health.health_status
        flags = EventFlags.make(
            maintenance_needed=status.maintenance_needed,
            performance_degraded=status.performance_degraded,
            hardware_replacement_needed=status.hardware_replacement_needed,
        )
        header = EventHeader(identifier=MEMORY_MODULE_EVENT, flags=flags)
        self._device.events.record(log, MemoryModuleEvent(header=header, event_type=kind, health=health))


def _conditions(health: DeviceHealth) -> int:
    """What a change of health status is about: its bits, and the thresholds of corrected errors."""
    status = health.additional_status
    return (
        int(health.health_status)
        | status.corrected_volatile_errors << 8
        | status.corrected_persistent_errors << 9
    )
