"""QoS telemetry of a multi-logical device: who uses how much of its bandwidth, and how congested it is (opcodes 5403h
to 5409h, CXL 3.1 §3.3.4, §7.6.7.4.4 to §7.6.7.4.10).

What is modelled, and what is not: backpressure on the egress port and a temporary reduction of throughput are stated
from outside, never measured. Requests are those of hosts in this process, access by access (`HostMachine.load` and
`store`); what guests and programs do in mapped memory is not seen. The completion collection interval is not one of
time: ReqCmpCnt of a logical device is how many of the last ReqCmpBasis requests of the device were its own. From all
that follows DevLoad, which each response has; nothing is slowed down by it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.device.persist import StatePage
from softcxl.device.qos import QosTelemetry
from softcxl.spec.command.base import CommandEffects, ReturnCode
from softcxl.spec.command.qos import QosTelemetryControl
from softcxl.spec.fm.mld import (
    GET_QOS_ALLOCATED_BW,
    GET_QOS_BW_LIMIT,
    GET_QOS_CONTROL,
    GET_QOS_STATUS,
    SET_QOS_ALLOCATED_BW,
    SET_QOS_BW_LIMIT,
    SET_QOS_CONTROL,
    GetQosStatusResponse,
    QosBandwidth,
    QosBandwidthRequest,
    QosControl,
)

if TYPE_CHECKING:
    from softcxl.device.cpmu import PerformanceMonitor
    from softcxl.device.mld.head import Head

WHOLE: Final = 256
"""Fractions of bandwidth are in 1/256."""
UNLIMITED: Final = 255
"""The limit that a logical device has at first."""
_INTERVAL_MAX: Final = 15
_PERCENT: Final = 100
_AT_ONCE: Final = CommandEffects.make(immediate_config_change=True)


class DevLoad(enum.IntEnum):
    """The load that a response tells of (CXL 3.1 §3.3.11)."""

    LIGHT = 0
    OPTIMAL = 1
    MODERATE_OVERLOAD = 2
    SEVERE_OVERLOAD = 3


@dataclass(slots=True)
class Usage:
    """What a logical device has been asked for: `requests`, of `bytes` in all, and how many `responses` had each
    DevLoad."""

    requests: int = 0
    bytes: int = 0
    responses: dict[DevLoad, int] = field(default_factory=lambda: dict.fromkeys(DevLoad, 0))


class BandwidthTelemetry:
    """The telemetry of a device with `count` logical devices; fractions outlive power on `page`.

    `backpressure` (percent of the time) and `reduced` (throughput is, for a while) are for whoever plays the device.
    """

    def __init__(self, count: int, page: StatePage, lock: AbstractContextManager[object]) -> None:
        self._lock, self._page = lock, page
        self.usage = [Usage() for _ in range(count)]
        self.reduced = False
        self._backpressure = 0

        def read(section: dict[str, Any]) -> tuple[list[int], list[int]]:
            kept = [int(one) for one in section["allocated"]], [int(one) for one in section["limits"]]
            if any(len(one) != count or bytes(one) != bytes(one) for one in kept) or sum(kept[0]) > WHOLE:
                raise ValueError(section)
            return kept

        self.allocated, self.limits = page.take("qos", read) or ([0] * count, [UNLIMITED] * count)
        self.reset()

    def reset(self) -> None:
        """A conventional reset of the device: control has the standard's defaults. The lock is held."""
        self.control = QosControl(control=QosTelemetryControl(0), request_completion_basis=0)
        self._empty()

    def _empty(self) -> None:
        self._tells = bool(self.control.request_completion_basis) or int(self.control.control) != 0
        self._recent: deque[int] = deque()
        self._counts = [0] * len(self.usage)

    @property
    def backpressure(self) -> int:
        """Backpressure on the egress port, in percent of the time. Settable, from 0 to 100, else `ValueError`."""
        return self._backpressure

    @backpressure.setter
    def backpressure(self, percent: int) -> None:
        if type(percent) is not int or not 0 <= percent <= _PERCENT:
            raise ValueError(
                f"a backpressure of {percent!r} percent: a whole number from 0 to 100 is allowed"
            )
        self._backpressure = percent

    @property
    def sampled(self) -> int:
        """The average backpressure as far as the device samples it, in percent."""
        return self._backpressure if self.control.backpressure_sample_interval else 0

    def set_control(self, control: QosControl) -> None:
        """Another control: collection begins anew. The lock is held."""
        self.control = control
        self._empty()

    def set_fractions(self, allocated: Sequence[int], limits: Sequence[int]) -> None:
        """Other fractions. Raises `OSError` where they cannot be kept. The lock is held."""
        self._page.put("qos", allocated=list(allocated), limits=list(limits))
        self.allocated, self.limits = list(allocated), list(limits)

    # -- requests ------------------------------------------------------------------------------------------------

    def observe(self, ld: int, size: int) -> None:
        """A request of `size` bytes for a logical device, and its response."""
        with self._lock:
            basis = self.control.request_completion_basis
            if basis:
                self._recent.append(ld)
                self._counts[ld] += 1
                if len(self._recent) > basis:
                    self._counts[self._recent.popleft()] -= 1
            usage = self.usage[ld]
            usage.requests += 1
            usage.bytes += size
            usage.responses[self.load(ld) if self._tells else DevLoad.LIGHT] += 1

    def count(self, ld: int) -> int:
        """ReqCmpCnt of a logical device."""
        return self._counts[ld]

    def load(self, ld: int) -> DevLoad:
        """What responses of a logical device tell now (CXL 3.1 §3.3.4.3): the worst of

        - the egress port's congestion, by its two thresholds, where control says that it counts;
        - moderate overload while throughput is reduced, where that counts, but for a logical device that has used no
          more than its allocated fraction, to which it is optimal load;
        - moderate overload for a logical device beyond its limit.
        """
        control, mine = self.control, self._counts[ld] * WHOLE
        worst = DevLoad.LIGHT
        if control.control.egress_port_congestion:
            if self.sampled >= control.egress_severe_percentage:
                return DevLoad.SEVERE_OVERLOAD
            if self.sampled >= control.egress_moderate_percentage:
                worst = DevLoad.MODERATE_OVERLOAD
        basis = control.request_completion_basis
        if control.control.temporary_throughput_reduction and self.reduced:
            within = basis and mine <= self.allocated[ld] * basis
            worst = max(worst, DevLoad.OPTIMAL if within else DevLoad.MODERATE_OVERLOAD)
        if basis and mine > self.limits[ld] * basis and self.limits[ld] != UNLIMITED:
            worst = max(worst, DevLoad.MODERATE_OVERLOAD)
        return worst


class LdTelemetry(QosTelemetry):
    """What a logical device has of it: its requests are counted, and what is stated of its egress port is of the
    whole device's. Control is the fabric manager's, and a reset of the logical device changes none of it."""

    def __init__(self, of: BandwidthTelemetry, ld: int, lock: AbstractContextManager[object]) -> None:
        self._of, self._ld = of, ld
        self.monitor: PerformanceMonitor | None = None
        """Counts, too, while anybody watches."""
        super().__init__(lock)

    @property
    def backpressure(self) -> int:
        return self._of.backpressure

    @backpressure.setter
    def backpressure(self, percent: int) -> None:
        self._of.backpressure = percent

    @property
    def usage(self) -> Usage:
        """What it has been asked for."""
        return self._of.usage[self._ld]

    @property
    def load(self) -> DevLoad:
        """What its responses tell now."""
        return self._of.load(self._ld)

    def read(self, decoder: int, dpa: int, size: int) -> None:
        """`size` bytes at `dpa` have been read through an HDM decoder."""
        self._of.observe(self._ld, size)
        if self.monitor is not None:
            self.monitor.read(decoder, dpa, size)

    def write(self, decoder: int, dpa: int, size: int) -> None:
        """`size` bytes at `dpa` have been written through an HDM decoder."""
        self._of.observe(self._ld, size)
        if self.monitor is not None:
            self.monitor.write(decoder, dpa, size)


class QosCommands(CommandSet):
    """Get and Set QoS Control, Get QoS Status, Get and Set QoS Allocated BW and QoS BW Limit, for the logical devices
    of `head`.

    Both Sets of fractions answer with what is in effect, and do all or nothing. More than all of the bandwidth cannot
    be allocated. Reserved bits of control are ignored.
    """

    def __init__(self, head: Head) -> None:
        self._lds, self._qos = head.lds, head.mld.qos

    @command(GET_QOS_CONTROL)
    def get_control(self) -> QosControl:
        return self._qos.control

    @command(SET_QOS_CONTROL)
    def set_control(self, request: QosControl) -> QosControl:
        moderate, severe = request.egress_moderate_percentage, request.egress_severe_percentage
        if not 1 <= moderate <= severe <= _PERCENT or request.backpressure_sample_interval > _INTERVAL_MAX:
            raise CommandError(ReturnCode.INVALID_INPUT)
        known = QosTelemetryControl.make(
            egress_port_congestion=request.control.egress_port_congestion,
            temporary_throughput_reduction=request.control.temporary_throughput_reduction,
        )
        self._qos.set_control(request.replace(control=known))
        return self._qos.control

    @command(GET_QOS_STATUS)
    def get_status(self) -> GetQosStatusResponse:
        return GetQosStatusResponse(backpressure_average_percentage=self._qos.sampled)

    @command(GET_QOS_ALLOCATED_BW)
    def get_allocated(self, request: QosBandwidthRequest) -> QosBandwidth:
        return self._told(self._there(request), self._qos.allocated)

    @command(SET_QOS_ALLOCATED_BW, effects=_AT_ONCE)
    def set_allocated(self, request: QosBandwidth) -> QosBandwidth:
        allocated = self._changed(request, self._qos.allocated)
        if sum(allocated) > WHOLE:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._qos.set_fractions(allocated, self._qos.limits)
        return self._told(request, allocated)

    @command(GET_QOS_BW_LIMIT)
    def get_limit(self, request: QosBandwidthRequest) -> QosBandwidth:
        return self._told(self._there(request), self._qos.limits)

    @command(SET_QOS_BW_LIMIT, effects=_AT_ONCE)
    def set_limit(self, request: QosBandwidth) -> QosBandwidth:
        limits = self._changed(request, self._qos.limits)
        self._qos.set_fractions(self._qos.allocated, limits)
        return self._told(request, limits)

    def _there(self, request: QosBandwidthRequest) -> QosBandwidthRequest:
        """As many as there are, of those that are asked for: jack asks for 255, and libcxlmi's tests for 16."""
        return request.replace(count=min(request.count, max(len(self._lds) - request.start, 0)))

    def _named(self, request: QosBandwidth | QosBandwidthRequest) -> Sequence[int]:
        """The logical devices that a request is about. Raises `CommandError` unless all of them are there."""
        end = request.start + request.count
        if not request.count or end > len(self._lds):
            raise CommandError(ReturnCode.INVALID_INPUT)
        return self._lds[request.start : end]

    def _told(self, request: QosBandwidth | QosBandwidthRequest, fractions: Sequence[int]) -> QosBandwidth:
        found = [fractions[ld] for ld in self._named(request)]
        return QosBandwidth(count=len(found), start=request.start, fractions=found)

    def _changed(self, request: QosBandwidth, fractions: Sequence[int]) -> list[int]:
        changed = list(fractions)
        for ld, fraction in zip(self._named(request), request.fractions, strict=True):
            changed[ld] = fraction
        return changed
