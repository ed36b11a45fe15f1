"""QoS telemetry of a multi-logical device: who uses how much of its bandwidth, and how congested it is (opcodes 5403h
to 5409h, CXL 3.1 §3.3.4, §7.6.7.4.4 to §7.6.7.4.10).

What is modelled, and what is not: the load inside the device, backpressure on its egress port and a temporary reduction
of throughput are stated from outside, never measured. Requests are those of hosts in this process, access by access
(`HostMachine.load` and `store`); what guests and programs do in mapped memory is not seen. Time is counted in requests:
where a real device remembers responses of 16 collection intervals of so many nanoseconds, this one remembers 16 times
as many of its requests; how many of them were for a logical device is its ReqCmpCnt. From all that follows DevLoad, as
the standard reckons it, which each response has; nothing is slowed down by it.
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
HISTORY: Final = 16
"""Collection intervals that are remembered."""
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
    DevLoad, by its number."""

    requests: int = 0
    bytes: int = 0
    responses: list[int] = field(default_factory=lambda: [0] * len(DevLoad))


class BandwidthTelemetry:
    """The telemetry of a device with `count` logical devices; fractions outlive power on `page`.

    `internal` (its own load), `backpressure` (percent of the time) and `reduced` (throughput is, for a while) are for
    whoever plays the device.
    """

    def __init__(self, count: int, page: StatePage, lock: AbstractContextManager[object]) -> None:
        self._lock, self._page = lock, page
        self.usage = [Usage() for _ in range(count)]
        self.internal, self.reduced = DevLoad.LIGHT, False
        self._backpressure = 0

        def read(section: dict[str, Any]) -> tuple[list[int], list[int]]:
            kept = [int(one) for one in section["allocated"]], [int(one) for one in section["limits"]]
            if any(len(bytes(one)) != count for one in kept) or sum(kept[0]) > WHOLE:
                raise ValueError(section)
            return kept

        self.allocated, self.limits = page.take("qos", read) or ([0] * count, [0] * count)
        self.reset()

    def reset(self) -> None:
        """A conventional reset of the device: control has the standard's defaults. The lock is held."""
        self.control = QosControl(control=QosTelemetryControl(0), request_completion_basis=0)
        self._quiet = True  # nothing but its own load counts
        self._begin()

    def _begin(self) -> None:
        """Collect from now on, as control says."""
        self._history = HISTORY * self.control.completion_collection_interval
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
        """Another control; with another collection interval collection begins anew. The lock is held."""
        same = control.completion_collection_interval == self.control.completion_collection_interval
        self.control = control
        self._quiet = not int(control.control) and not control.request_completion_basis
        if not same:
            self._begin()

    def set_fractions(self, allocated: Sequence[int], limits: Sequence[int]) -> None:
        """Other fractions. Raises `OSError` where they cannot be kept. The lock is held."""
        self._page.put("qos", allocated=list(allocated), limits=list(limits))
        self.allocated, self.limits = list(allocated), list(limits)

    # -- requests ------------------------------------------------------------------------------------------------

    def observe(self, ld: int, size: int) -> None:
        """A request of `size` bytes for a logical device, and its response."""
        with self._lock:
            if self._history:
                self._recent.append(ld)
                self._counts[ld] += 1
                if len(self._recent) > self._history:
                    self._counts[self._recent.popleft()] -= 1
            usage = self.usage[ld]
            usage.requests += 1
            usage.bytes += size
            usage.responses[0 if self._quiet and not self.internal else self.load(ld)] += 1

    def count(self, ld: int) -> int:
        """ReqCmpCnt of a logical device."""
        return self._counts[ld]

    @property
    def total(self) -> DevLoad:
        """The load of the whole device: the worst of its own, of its egress port's congestion and of a reduction of
        throughput, the latter two where control says that they count."""
        control, worst = self.control, self.internal
        if control.control.egress_port_congestion:
            if self.sampled >= control.egress_severe_percentage:
                return DevLoad.SEVERE_OVERLOAD
            if self.sampled >= control.egress_moderate_percentage:
                worst = max(worst, DevLoad.MODERATE_OVERLOAD)
        if control.control.temporary_throughput_reduction and self.reduced:
            worst = max(worst, DevLoad.MODERATE_OVERLOAD)
        return worst

    def load(self, ld: int) -> DevLoad:
        """What responses of a logical device tell now: the load of the device, more for who is beyond his limit, and
        less for who is within what he was allocated (CXL 3.1 §3.3.4.3.7, Table 3-32)."""
        total = self.total
        if total is DevLoad.SEVERE_OVERLOAD:
            return total if self.beyond_allocation(ld) else DevLoad.MODERATE_OVERLOAD
        if self.beyond_limit(ld):
            return DevLoad.MODERATE_OVERLOAD
        if total is DevLoad.MODERATE_OVERLOAD and not self.beyond_allocation(ld):
            return DevLoad.OPTIMAL
        return total

    def beyond_limit(self, ld: int) -> bool:
        """A logical device has had more requests than its fraction of ReqCmpBasis; with a basis of 0 there is no
        limit."""
        basis = self.control.request_completion_basis
        return basis > 0 and self._counts[ld] * WHOLE > self.limits[ld] * basis

    def beyond_allocation(self, ld: int) -> bool:
        """A logical device has had more than its fraction of all requests, and than its part of what others have left
        of theirs."""
        requests = sum(self._counts)
        mine, claimed, surplus = self.allocated[ld] * requests, 0, 0
        for count, fraction in zip(self._counts, self.allocated, strict=True):
            allocated = fraction * requests
            if count * WHOLE > allocated:
                claimed += allocated
            else:
                surplus += allocated - count * WHOLE
        used = self._counts[ld] * WHOLE
        return used > mine and (not claimed or used * claimed > mine * (claimed + surplus))


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

    Gets of fractions answer with as many as there are. Sets answer with what is in effect, and do all or nothing: more
    than all of the bandwidth cannot be allocated. Reserved bits of control are ignored.
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
        return self._told(request, self._qos.allocated)

    @command(SET_QOS_ALLOCATED_BW, effects=_AT_ONCE)
    def set_allocated(self, request: QosBandwidth) -> QosBandwidth:
        allocated = self._changed(request, self._qos.allocated)
        if sum(allocated) > WHOLE:
            raise CommandError(ReturnCode.INVALID_INPUT)
        self._qos.set_fractions(allocated, self._qos.limits)
        return self._told(request, allocated)

    @command(GET_QOS_BW_LIMIT)
    def get_limit(self, request: QosBandwidthRequest) -> QosBandwidth:
        return self._told(request, self._qos.limits)

    @command(SET_QOS_BW_LIMIT, effects=_AT_ONCE)
    def set_limit(self, request: QosBandwidth) -> QosBandwidth:
        limits = self._changed(request, self._qos.limits)
        self._qos.set_fractions(self._qos.allocated, limits)
        return self._told(request, limits)

    def _told(self, request: QosBandwidth | QosBandwidthRequest, fractions: Sequence[int]) -> QosBandwidth:
        """Those of the logical devices asked for that there are, one at least: else raises `CommandError`."""
        found = [fractions[ld] for ld in self._lds[request.start : request.start + request.count]]
        if not found:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return QosBandwidth(count=len(found), start=request.start, fractions=found)

    def _changed(self, request: QosBandwidth, fractions: Sequence[int]) -> list[int]:
        """All fractions, as asked for. Raises `CommandError` unless all that are named are there."""
        end, changed = request.start + request.count, list(fractions)
        if not request.count or end > len(self._lds):
            raise CommandError(ReturnCode.INVALID_INPUT)
        for ld, fraction in zip(self._lds[request.start : end], request.fractions, strict=True):
            changed[ld] = fraction
        return changed
