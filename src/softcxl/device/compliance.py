"""Compliance mode: data objects with which a test drives the device (CXL 3.1 §14.16.4).

A device of memory alone, whose link has no flits, can send poison with data that are good, and become viral. All else
is answered Unsupported Injection: algorithms, which take an initiator, and what happens to flits and MACs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from softcxl.spec.cxl.compliance import (
    BogusWritesRequest,
    ComplianceCapabilityResponse,
    ComplianceOptions,
    ComplianceProtocol,
    ComplianceRequest,
    ComplianceRequestCode,
    ComplianceResponse,
    ComplianceStatus,
    ComplianceStatusResponse,
    InjectAlmpRequest,
    InjectBitErrorRequest,
    InjectCrcRequest,
    InjectFlowControlRequest,
    InjectMacDelayRequest,
    InjectPoisonRequest,
    InjectViralRequest,
    InsertUnexpectedMacRequest,
    MultipleWriteStreamingRequest,
    ProducerConsumerRequest,
    ToggleCacheFlushRequest,
)
from softcxl.spec.pci.doe import DataObjectHeader
from softcxl.wire import Record, Reset, WireError

if TYPE_CHECKING:
    from softcxl.device.type3 import Type3

VERSION: Final = 1
"""Of our responses."""

_HEADER = DataObjectHeader.__layout__.size
_CODE = ComplianceRequestCode
_REQUESTS: dict[int, type[Record]] = {
    _CODE.CAPABILITY: ComplianceRequest,
    _CODE.STATUS: ComplianceRequest,
    _CODE.HALT_ALL: ComplianceRequest,
    _CODE.MULTIPLE_WRITE_STREAMING: MultipleWriteStreamingRequest,
    _CODE.PRODUCER_CONSUMER: ProducerConsumerRequest,
    _CODE.BOGUS_WRITES: BogusWritesRequest,
    _CODE.INJECT_POISON: InjectPoisonRequest,
    _CODE.INJECT_CRC: InjectCrcRequest,
    _CODE.INJECT_FLOW_CONTROL: InjectFlowControlRequest,
    _CODE.TOGGLE_CACHE_FLUSH: ToggleCacheFlushRequest,
    _CODE.INJECT_MAC_DELAY: InjectMacDelayRequest,
    _CODE.INSERT_UNEXPECTED_MAC: InsertUnexpectedMacRequest,
    _CODE.INJECT_VIRAL: InjectViralRequest,
    _CODE.INJECT_ALMP: InjectAlmpRequest,
    _CODE.IGNORE_ALMP: InjectAlmpRequest,
    _CODE.INJECT_BIT_ERROR: InjectBitErrorRequest,
}


class ComplianceMode:
    """The compliance mode of `device`.

    Poison that is injected goes out with the next data that a host reads, once, and is not in the media. What is
    under way ends with Halt All, and with any reset, FLR too.
    """

    def __init__(self, device: Type3) -> None:
        self._device = device
        device.parts.append(self)

    def reset(self, kind: Reset) -> None:
        """Nothing is under way any more. The function's lock is held."""
        self._halt()

    def exchange(self, body: bytes) -> bytes | None:
        """Answer a request; None, which is no response, to one that is too short or too long for its code."""
        code = body[0] if body else None
        record = _REQUESTS.get(code) if code is not None else None
        if record is None:
            if len(body) < ComplianceRequest.__layout__.size:
                return None
            return self._said(body[0], ComplianceStatus.UNKNOWN_FAILURE)
        size = record.__layout__.size
        if len(body) != size + -size % 4:
            return None
        try:
            request = record.unpack(body[:size])
        except WireError:
            return None
        return self._answer(request)

    def _answer(self, request: Record) -> bytes:
        match request:
            case InjectPoisonRequest():
                return self._said(request.code, self._send_poison(request.protocol))
            case InjectViralRequest():
                return self._said(request.code, self._become_viral(request.protocol))
            case ComplianceRequest(code=_CODE.CAPABILITY):
                return self._capability()
            case ComplianceRequest(code=_CODE.STATUS):
                return self._status()
            case ComplianceRequest(code=_CODE.HALT_ALL):
                self._halt()
                return self._said(request.code, ComplianceStatus.SUCCESS)
        return self._said(request.pack()[0], ComplianceStatus.UNSUPPORTED_INJECTION)

    # -- what can be asked for -------------------------------------------------------------------------------

    def _capability(self) -> bytes:
        can = ComplianceOptions()
        can.capability = can.status = can.halt_all = can.inject_poison = can.inject_viral = True
        return ComplianceCapabilityResponse(
            code=_CODE.CAPABILITY,
            version=VERSION,
            length=_HEADER + ComplianceCapabilityResponse.__layout__.size,
            status=ComplianceStatus.SUCCESS,
            available=can,
            enabled=can,
        ).pack()

    def _status(self) -> bytes:
        under_way = self._device.poison.sending << _CODE.INJECT_POISON
        return ComplianceStatusResponse(
            code=_CODE.STATUS,
            version=VERSION,
            length=_HEADER + ComplianceStatusResponse.__layout__.size,
            capabilities=under_way,
            cache_size=0,
            cache_size_unit=0,
        ).pack()

    def _send_poison(self, protocol: int) -> ComplianceStatus:
        if protocol != ComplianceProtocol.CXL_MEM:
            return ComplianceStatus.UNSUPPORTED_INJECTION
        if not self._device.memory_enabled:
            return ComplianceStatus.TARGET_NOT_INITIALIZED
        if self._device.poison.sending:
            return ComplianceStatus.TARGET_BUSY
        self._device.poison.sending = True
        return ComplianceStatus.SUCCESS

    def _become_viral(self, protocol: int) -> ComplianceStatus:
        if protocol != ComplianceProtocol.CXL_MEM:
            return ComplianceStatus.UNSUPPORTED_INJECTION
        viral = self._device.enter_viral()
        return ComplianceStatus.SUCCESS if viral else ComplianceStatus.NOT_AUTHORIZED

    def _halt(self) -> None:
        self._device.poison.sending = False

    def _said(self, code: int, status: ComplianceStatus) -> bytes:
        length = _HEADER + ComplianceResponse.__layout__.size
        return ComplianceResponse(code=code, version=VERSION, length=length, status=status).pack()
