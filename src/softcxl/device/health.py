"""Health and alerts (CXL 3.1 §8.2.9.9.3)."""

from __future__ import annotations

from collections.abc import Callable

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.health import (
    GET_ALERT_CONFIGURATION,
    GET_HEALTH_INFO,
    SET_ALERT_CONFIGURATION,
    Alerts,
    GetAlertConfigurationResponse,
    SetAlertConfigurationRequest,
)
from softcxl.spec.cxl.events import AdditionalState, AdditionalStatus, DeviceHealth, MediaHealth

LIFE_NOT_REPORTED, TEMPERATURE_NOT_REPORTED = 0xFF, 0x7FFF


class HealthCommands(CommandSet):
    """The device's condition, and the thresholds at which it warns.

    `info` is the condition itself, for the device to change; what follows from thresholds is worked out
    when it is read.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = lambda: None  # called when thresholds have
        self.info = DeviceHealth(media_status=MediaHealth.NORMAL, life_used=0, device_temperature=25)
        every = Alerts(0x1F)
        self.alerts = GetAlertConfigurationResponse(
            programmable=every,
            life_used_critical=75,
            life_used_warning=40,
            over_temperature_critical=90,
            under_temperature_critical=-20,
            over_temperature_warning=70,
            under_temperature_warning=0,
        )

    def condition(self) -> DeviceHealth:
        """`info` with Additional Status as the thresholds make it."""
        info, alerts, on = self.info, self.alerts, self.alerts.valid
        life, temperature, status = info.life_used, info.device_temperature, AdditionalStatus()
        if life != LIFE_NOT_REPORTED:
            if life >= alerts.life_used_critical:
                status.life_used = AdditionalState.CRITICAL
            elif on.life_used and life >= alerts.life_used_warning:
                status.life_used = AdditionalState.WARNING
        if temperature != TEMPERATURE_NOT_REPORTED:
            if not alerts.under_temperature_critical < temperature < alerts.over_temperature_critical:
                status.device_temperature = AdditionalState.CRITICAL
            elif (on.over_temperature and temperature >= alerts.over_temperature_warning) or (
                on.under_temperature and temperature <= alerts.under_temperature_warning
            ):
                status.device_temperature = AdditionalState.WARNING
        status.corrected_volatile_errors = (
            on.corrected_volatile_errors
            and info.corrected_volatile_error_count >= alerts.corrected_volatile_errors_warning
        )
        status.corrected_persistent_errors = (
            on.corrected_persistent_errors
            and info.corrected_persistent_error_count >= alerts.corrected_persistent_errors_warning
        )
        return DeviceHealth(
            health_status=info.health_status,
            media_status=info.media_status,
            additional_status=status,
            life_used=life,
            device_temperature=temperature,
            dirty_shutdown_count=info.dirty_shutdown_count,
            corrected_volatile_error_count=info.corrected_volatile_error_count,
            corrected_persistent_error_count=info.corrected_persistent_error_count,
        )

    @command(GET_HEALTH_INFO)
    def get_health_info(self) -> DeviceHealth:
        return self.condition()

    @command(GET_ALERT_CONFIGURATION)
    def get_alert_configuration(self) -> GetAlertConfigurationResponse:
        return self.alerts

    @command(SET_ALERT_CONFIGURATION)
    def set_alert_configuration(self, request: SetAlertConfigurationRequest) -> None:
        alerts, chosen = self.alerts, request.valid
        on = int(request.enable) & int(chosen)
        if on & Alerts.life_used.mask and not 0 < request.life_used_warning < alerts.life_used_critical:
            raise CommandError(ReturnCode.INVALID_INPUT)
        if (
            on & Alerts.over_temperature.mask
            and request.over_temperature_warning >= alerts.over_temperature_critical
        ):
            raise CommandError(ReturnCode.INVALID_INPUT)
        if (
            on & Alerts.under_temperature.mask
            and request.under_temperature_warning <= alerts.under_temperature_critical
        ):
            raise CommandError(ReturnCode.INVALID_INPUT)
        alerts.valid.assign(int(alerts.valid) & ~int(chosen) & 0x1F | on & 0x1F)
        for field, item in (
            (Alerts.life_used, "life_used_warning"),
            (Alerts.over_temperature, "over_temperature_warning"),
            (Alerts.under_temperature, "under_temperature_warning"),
            (Alerts.corrected_volatile_errors, "corrected_volatile_errors_warning"),
            (Alerts.corrected_persistent_errors, "corrected_persistent_errors_warning"),
        ):
            if on & field.mask:
                setattr(alerts, item, getattr(request, item))
        self.changed()
