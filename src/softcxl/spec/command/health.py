"""Health: condition, alerts and the shutdown state (opcodes 4200h to 4204h)."""

from __future__ import annotations

import enum
from typing import Final

from softcxl.spec.command.base import NO_EFFECT, Command, CommandEffects
from softcxl.spec.cxl.events import DeviceHealth
from softcxl.wire import RO, Record, Register, bit, i16, reserved, u8, u16, word


class Alerts(Register, width=8, spec="CXL 3.1 §8.2.9.9.3.2"):
    """One bit an alert that has a programmable warning threshold."""

    life_used = bit(0, RO)
    over_temperature = bit(1, RO)
    under_temperature = bit(2, RO)
    corrected_volatile_errors = bit(3, RO)
    corrected_persistent_errors = bit(4, RO)


class GetAlertConfigurationResponse(Record, size=0x10, spec="CXL 3.1 §8.2.9.9.3.2"):
    """Get Alert Configuration output payload."""

    valid: Alerts = word(Alerts, "which warning thresholds hold")
    programmable: Alerts = word(Alerts, "which warning thresholds can be set")
    life_used_critical: int = u8("percent")
    life_used_warning: int = u8("percent")
    over_temperature_critical: int = i16("in °C")
    under_temperature_critical: int = i16("in °C")
    over_temperature_warning: int = i16("in °C")
    under_temperature_warning: int = i16("in °C")
    corrected_volatile_errors_warning: int = u16("errors")
    corrected_persistent_errors_warning: int = u16("errors")


class SetAlertConfigurationRequest(Record, size=0x0C, spec="CXL 3.1 §8.2.9.9.3.3"):
    """Set Alert Configuration input payload."""

    valid: Alerts = word(Alerts, "which warnings the command is about")
    enable: Alerts = word(Alerts, "which of these are on from now on")
    life_used_warning: int = u8("percent")
    _reserved: None = reserved(1)
    over_temperature_warning: int = i16("in °C")
    under_temperature_warning: int = i16("in °C")
    corrected_volatile_errors_warning: int = u16("errors")
    corrected_persistent_errors_warning: int = u16("errors")


class ShutdownState(enum.IntEnum):
    """Whether writes under way at a power loss would be lost (CXL 3.1 §8.2.9.9.3.4)."""

    CLEAN = 0
    DIRTY = 1


class GetShutdownStateResponse(Record, size=0x01, spec="CXL 3.1 §8.2.9.9.3.4"):
    """Get Shutdown State output payload."""

    state: ShutdownState = u8(ShutdownState)


class SetShutdownStateRequest(Record, size=0x01, spec="CXL 3.1 §8.2.9.9.3.5"):
    """Set Shutdown State input payload."""

    state: ShutdownState = u8(ShutdownState)


GET_HEALTH_INFO: Final = Command(
    0x4200,
    "Get Health Info",
    None,
    DeviceHealth,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.3.1",
)
GET_ALERT_CONFIGURATION: Final = Command(
    0x4201,
    "Get Alert Configuration",
    None,
    GetAlertConfigurationResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.3.2",
)
SET_ALERT_CONFIGURATION: Final = Command(
    0x4202,
    "Set Alert Configuration",
    SetAlertConfigurationRequest,
    None,
    CommandEffects.make(immediate_policy_change=True),
    "CXL 3.1 §8.2.9.9.3.3",
)
GET_SHUTDOWN_STATE: Final = Command(
    0x4203,
    "Get Shutdown State",
    None,
    GetShutdownStateResponse,
    NO_EFFECT,
    "CXL 3.1 §8.2.9.9.3.4",
)
SET_SHUTDOWN_STATE: Final = Command(
    0x4204,
    "Set Shutdown State",
    SetShutdownStateRequest,
    None,
    CommandEffects.make(immediate_policy_change=True),
    "CXL 3.1 §8.2.9.9.3.5",
)

COMMANDS: Final = (
    GET_HEALTH_INFO,
    GET_ALERT_CONFIGURATION,
    SET_ALERT_CONFIGURATION,
    GET_SHUTDOWN_STATE,
    SET_SHUTDOWN_STATE,
)
