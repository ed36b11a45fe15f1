"""QoS telemetry of a single logical device: thresholds of congestion, and how congested it is (CXL 3.1 §8.2.9.9.8)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.qos import (
    GET_SLD_QOS_CONTROL,
    GET_SLD_QOS_STATUS,
    SET_SLD_QOS_CONTROL,
    GetSldQosStatusResponse,
    QosTelemetryControl,
    SldQosControl,
)

_CONTROL: Final = (
    QosTelemetryControl.egress_port_congestion.mask | QosTelemetryControl.temporary_throughput_reduction.mask
)
_INTERVAL_MAX: Final = 15
_ALL: Final = 100


class QosTelemetry(CommandSet):
    """Get and Set SLD QoS Control, and Get SLD QoS Status. Control has its defaults after a conventional reset, and
    reserved bits of it are ignored.

    `backpressure` is how much of the time the device's egress port is held up; it comes from outside,
    not from software. The status shows it as far as the device samples it.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._backpressure = 0
        self.reset()

    def reset(self) -> None:
        """A conventional reset: the standard's defaults."""
        self.control = SldQosControl(control=QosTelemetryControl(0))

    @property
    def backpressure(self) -> int:
        """Backpressure on the egress port, in percent of the time. Settable, from 0 to 100, else `ValueError`."""
        return self._backpressure

    @backpressure.setter
    def backpressure(self, percent: int) -> None:
        if type(percent) is not int or not 0 <= percent <= _ALL:
            raise ValueError(
                f"a backpressure of {percent!r} percent: a whole number from 0 to {_ALL} is allowed"
            )
        with self._lock:
            self._backpressure = percent

    @command(GET_SLD_QOS_CONTROL)
    def get_control(self) -> SldQosControl:
        return self.control

    @command(SET_SLD_QOS_CONTROL)
    def set_control(self, request: SldQosControl) -> None:
        moderate, severe = request.egress_moderate_percentage, request.egress_severe_percentage
        if not 1 <= moderate <= severe <= _ALL or request.backpressure_sample_interval > _INTERVAL_MAX:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self.control = request.replace(control=QosTelemetryControl(int(request.control) & _CONTROL))

    @command(GET_SLD_QOS_STATUS)
    def get_status(self) -> GetSldQosStatusResponse:
        sampled = self.control.backpressure_sample_interval > 0
        return GetSldQosStatusResponse(backpressure_average_percentage=self._backpressure if sampled else 0)
