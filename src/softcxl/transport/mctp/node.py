"""What is behind a door: endpoints by their IDs, and the control protocol that tells of them (DSP0236 1.3 §12)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import NAMESPACE_OID, UUID, uuid5

from softcxl.spec.mctp.control import (
    BASE_VERSION,
    NO_MORE_ENTRIES,
    CompletionCode,
    ControlCommand,
    ControlHeader,
    ControlInstance,
    EndpointIdStatus,
    EndpointType,
    GetEndpointIdResponse,
    GetEndpointUuidResponse,
    GetMessageTypeSupportResponse,
    GetRoutingTableEntriesRequest,
    GetRoutingTableEntriesResponse,
    GetVendorMessageSupportRequest,
    GetVersionSupportRequest,
    GetVersionSupportResponse,
    MctpVersion,
    RoutingEntryType,
    RoutingTableEntry,
    SetEndpointIdOperation,
    SetEndpointIdRequest,
    SetEndpointIdResponse,
)
from softcxl.spec.mctp.packet import (
    BASELINE_TRANSMISSION_UNIT,
    BROADCAST_EID,
    FIRST_EID,
    NULL_EID,
    MessageType,
)
from softcxl.transport.mctp.port import Endpoint
from softcxl.wire import Record

_PREFIX: Final = 1 + ControlHeader.__layout__.size
_SIMPLE, _BRIDGE = 0, 1
_IS_STATIC, _WAS_STATIC = 2, 3

BASE_VERSIONS: Final = (
    MctpVersion(major=0xF1, minor=0xF0, update=0xFF, alpha=0),
    MctpVersion(major=0xF1, minor=0xF1, update=0xF0, alpha=0),
    MctpVersion(major=0xF1, minor=0xF2, update=0xF0, alpha=0),
    MctpVersion(major=0xF1, minor=0xF3, update=0xF1, alpha=0),
)
"""Versions of DSP0236 that control messages follow: 1.0, 1.1.0, 1.2.0 and 1.3.1."""

CXL_VERSION: Final = MctpVersion(major=0xF1, minor=0xF0, update=0xF0, alpha=0)
"""Version of the FM API's and the command interface's bindings: DSP0234 1.0.0, DSP0281 1.0.0."""

_ENTRY_SIZE: Final = RoutingTableEntry.__layout__.size
_ENTRIES: Final = (
    BASELINE_TRANSMISSION_UNIT - _PREFIX - GetRoutingTableEntriesResponse.__layout__.size
) // _ENTRY_SIZE


@dataclass(slots=True, eq=False)
class Slot:
    """An endpoint, the ID that it has, and the one that it had first."""

    endpoint: Endpoint
    eid: int
    static: int


class Node:
    """Endpoints by their IDs, for one door or for several that share what Set Endpoint ID changes.

    The first one also has ID 0, which stands for whoever is at the end of the line, and tells of the others by Get
    Routing Table Entries. Raises `ValueError` where there is none, or for an ID outside 8 to 254.
    """

    def __init__(self, endpoints: Mapping[int, Endpoint]) -> None:
        if not endpoints:
            raise ValueError("a node has one endpoint at least")
        for eid in endpoints:
            _check(eid)
        self._slots = [Slot(endpoint, eid, eid) for eid, endpoint in endpoints.items()]
        self._lock = threading.Lock()
        self._by_eid = self._index()

    def _index(self) -> dict[int, Slot]:
        return {NULL_EID: self._slots[0]} | {slot.eid: slot for slot in self._slots}

    @property
    def endpoints(self) -> dict[int, Endpoint]:
        """The endpoints by the IDs that they have now."""
        return {slot.eid: slot.endpoint for slot in self._slots}

    def find(self, eid: int) -> Slot | None:
        """Who has this ID."""
        return self._by_eid.get(eid)

    # -- control protocol ------------------------------------------------------------------------------------

    def control(self, slot: Slot, body: bytes, *, padded: bool = False) -> bytes | None:
        """The message that answers a control request, from its type byte on; None where there is none to give.

        With `padded`, what follows a request's parameters is padding; else it is Error Invalid Length.
        """
        if len(body) < _PREFIX:
            return None
        instance, command = ControlInstance(body[1]), body[2]
        if not instance.request:
            return None
        data = body[_PREFIX:]
        handler = _HANDLERS.get(command)
        if handler is None:
            answer = _failed(CompletionCode.UNSUPPORTED_COMMAND)
        else:
            request, method = handler
            size = 0 if request is None else request.__layout__.size
            if len(data) < size or (len(data) > size and not padded):
                answer = _failed(CompletionCode.INVALID_LENGTH)
            else:
                answer = method(self, slot, None if request is None else request.unpack(data[:size]))
        if instance.datagram:
            return None
        return (
            bytes((MessageType.CONTROL, int(ControlInstance.make(instance=instance.instance)), command))
            + answer
        )

    def _set_endpoint_id(self, slot: Slot, request: SetEndpointIdRequest) -> bytes:
        operation, eid = request.operation, request.eid
        if operation == SetEndpointIdOperation.RESET:
            eid = slot.static
        elif operation not in (SetEndpointIdOperation.SET, SetEndpointIdOperation.FORCE):
            return _failed(CompletionCode.INVALID_DATA)  # there is no discovered flag on these lines
        if not FIRST_EID <= eid < BROADCAST_EID:
            return _failed(CompletionCode.INVALID_DATA)
        with self._lock:
            taken = self._by_eid.get(eid, slot) is not slot
            if not taken:
                slot.eid = eid
                self._by_eid = self._index()
        return SetEndpointIdResponse(
            completion_code=CompletionCode.SUCCESS,
            status=EndpointIdStatus.make(rejected=taken),
            eid=slot.eid,
            pool_size=0,
        ).pack()

    def _get_endpoint_id(self, slot: Slot, request: None) -> bytes:
        bridge = slot is self._slots[0] and len(self._slots) > 1
        return GetEndpointIdResponse(
            completion_code=CompletionCode.SUCCESS,
            eid=slot.eid,
            type=EndpointType.make(
                id_type=_IS_STATIC if slot.eid == slot.static else _WAS_STATIC,
                endpoint_type=_BRIDGE if bridge else _SIMPLE,
            ),
            medium_specific=0,
        ).pack()

    def _get_endpoint_uuid(self, slot: Slot, request: None) -> bytes:
        return GetEndpointUuidResponse(
            completion_code=CompletionCode.SUCCESS, identifier=identifier(slot.endpoint)
        ).pack()

    def _get_version_support(self, slot: Slot, request: GetVersionSupportRequest) -> bytes:
        versions: Iterable[MctpVersion]
        if request.message_type in (BASE_VERSION, MessageType.CONTROL):
            versions = BASE_VERSIONS
        elif request.message_type in slot.endpoint.types:
            versions = (CXL_VERSION,)
        else:
            return _failed(CompletionCode.UNSUPPORTED_MESSAGE_TYPE)
        listed = list(versions)
        return GetVersionSupportResponse(
            completion_code=CompletionCode.SUCCESS, count=len(listed), versions=listed
        ).pack()

    def _get_message_type_support(self, slot: Slot, request: None) -> bytes:
        types = [int(type) for type in slot.endpoint.types]
        return GetMessageTypeSupportResponse(
            completion_code=CompletionCode.SUCCESS, count=len(types), types=types
        ).pack()

    def _get_vendor_message_support(self, slot: Slot, request: GetVendorMessageSupportRequest) -> bytes:
        return _failed(CompletionCode.INVALID_DATA)  # there is no set of vendor defined messages to select

    def _get_routing_table_entries(self, slot: Slot, request: GetRoutingTableEntriesRequest) -> bytes:
        if slot is not self._slots[0] or len(self._slots) == 1:
            return _failed(CompletionCode.UNSUPPORTED_COMMAND)  # only a bridge has a table
        if request.handle >= len(self._slots):
            return _failed(CompletionCode.INVALID_DATA)
        end = request.handle + _ENTRIES
        listed = [
            RoutingTableEntry(
                range_size=1,
                first_eid=one.eid,
                type=RoutingEntryType.make(static=True, type=0 if one is not slot else 2),
                binding=0,
                medium=0,
                address_size=0,
            ).pack()
            for one in self._slots[request.handle : end]
        ]
        return GetRoutingTableEntriesResponse(
            completion_code=CompletionCode.SUCCESS,
            next_handle=end if end < len(self._slots) else NO_MORE_ENTRIES,
            count=len(listed),
            entries=b"".join(listed),
        ).pack()


_HANDLERS: Final[dict[int, tuple[type[Record] | None, Callable[..., bytes]]]] = {
    ControlCommand.SET_ENDPOINT_ID: (SetEndpointIdRequest, Node._set_endpoint_id),
    ControlCommand.GET_ENDPOINT_ID: (None, Node._get_endpoint_id),
    ControlCommand.GET_ENDPOINT_UUID: (None, Node._get_endpoint_uuid),
    ControlCommand.GET_VERSION_SUPPORT: (GetVersionSupportRequest, Node._get_version_support),
    ControlCommand.GET_MESSAGE_TYPE_SUPPORT: (None, Node._get_message_type_support),
    ControlCommand.GET_VENDOR_MESSAGE_SUPPORT: (
        GetVendorMessageSupportRequest,
        Node._get_vendor_message_support,
    ),
    ControlCommand.GET_ROUTING_TABLE_ENTRIES: (
        GetRoutingTableEntriesRequest,
        Node._get_routing_table_entries,
    ),
}


def identifier(endpoint: Endpoint) -> UUID:
    """What Get Endpoint UUID answers."""
    return endpoint.identifier or uuid5(NAMESPACE_OID, f"softcxl/{endpoint.name}")


def _failed(code: CompletionCode) -> bytes:
    return bytes((code,))


def _check(eid: int) -> None:
    if not FIRST_EID <= eid < BROADCAST_EID:
        raise ValueError(f"endpoint ID {eid}: {FIRST_EID} to {BROADCAST_EID - 1} are allowed")
