"""MCTP control messages: identity, versions, message types, routing and discovery (DSP0236 1.3 §12).

A message is its type byte (`MessageType.CONTROL`), a `ControlHeader`, in responses a completion code, and what the
command says. Records here begin after the header: requests with their first parameter, responses with the completion
code. A response that is no success is a completion code alone.
"""

from __future__ import annotations

import enum
from typing import Final
from uuid import UUID

from softcxl.wire import RO, Record, Register, bit, bits, counted, tail, u8, uuid, word

BASE_VERSION: Final = 0xFF
"""Message type of a Get MCTP Version Support that asks for the version of MCTP itself (DSP0236 1.3 §12.6)."""

NO_MORE_ENTRIES: Final = 0xFF
"""Handle or selector of a list that has no more (DSP0236 1.3 §12.8, §12.12)."""


class ControlCommand(enum.IntEnum):
    """MCTP control commands (DSP0236 1.3 Table 12)."""

    SET_ENDPOINT_ID = 0x01
    GET_ENDPOINT_ID = 0x02
    GET_ENDPOINT_UUID = 0x03
    GET_VERSION_SUPPORT = 0x04
    GET_MESSAGE_TYPE_SUPPORT = 0x05
    GET_VENDOR_MESSAGE_SUPPORT = 0x06
    RESOLVE_ENDPOINT_ID = 0x07
    ALLOCATE_ENDPOINT_IDS = 0x08
    ROUTING_INFO_UPDATE = 0x09
    GET_ROUTING_TABLE_ENTRIES = 0x0A
    PREPARE_ENDPOINT_DISCOVERY = 0x0B
    ENDPOINT_DISCOVERY = 0x0C
    DISCOVERY_NOTIFY = 0x0D
    GET_NETWORK_ID = 0x0E
    QUERY_HOP = 0x0F
    RESOLVE_UUID = 0x10


class CompletionCode(enum.IntEnum):
    """Completion codes of control messages (DSP0236 1.3 Table 13)."""

    SUCCESS = 0x00
    ERROR = 0x01
    INVALID_DATA = 0x02
    INVALID_LENGTH = 0x03
    NOT_READY = 0x04
    UNSUPPORTED_COMMAND = 0x05
    UNSUPPORTED_MESSAGE_TYPE = 0x80
    """Of Get MCTP Version Support: this endpoint has no such messages."""


class ControlInstance(Register, width=8, spec="DSP0236 1.3 §11"):
    """Instance of a control message."""

    instance = bits(4, 0, RO, "the requester's number, which the response repeats")
    datagram = bit(6, RO, "no response is expected")
    request = bit(7, RO, "set: request, clear: response")


class ControlHeader(Record, size=0x02, spec="DSP0236 1.3 §11"):
    """What follows the message type in a control message."""

    instance: ControlInstance = word(ControlInstance)
    command: int = u8("a `ControlCommand`")


class Completion(Record, size=0x01, spec="DSP0236 1.3 §12"):
    """Response that is a completion code alone: of a failure, or of Prepare and Endpoint Discovery and Notify."""

    completion_code: int = u8("a `CompletionCode`")


class SetEndpointIdOperation(enum.IntEnum):
    """Operation of Set Endpoint ID (DSP0236 1.3 Table 14)."""

    SET = 0
    FORCE = 1
    RESET = 2
    SET_DISCOVERED = 3


class SetEndpointIdRequest(Record, size=0x02, spec="DSP0236 1.3 §12.3"):
    """Set Endpoint ID request."""

    operation: int = u8("a `SetEndpointIdOperation`")
    eid: int = u8()


class EndpointIdStatus(Register, width=8, spec="DSP0236 1.3 §12.3"):
    """What became of a Set Endpoint ID."""

    pool = bits(1, 0, RO, "0: no pool of endpoint IDs, 1: one is needed, 2: has one already")
    rejected = bits(5, 4, RO, "0: accepted, 1: rejected, the endpoint keeps its ID")


class SetEndpointIdResponse(Record, size=0x04, spec="DSP0236 1.3 §12.3"):
    """Set Endpoint ID response."""

    completion_code: int = u8("a `CompletionCode`")
    status: EndpointIdStatus = word(EndpointIdStatus)
    eid: int = u8("as it now is")
    pool_size: int = u8("endpoint IDs that a bridge needs, 0: none")


class EndpointType(Register, width=8, spec="DSP0236 1.3 §12.4"):
    """What an endpoint is, and how it got its ID."""

    id_type = bits(1, 0, RO, "0: dynamic, 1: static, 2 and 3: static, and the ID is or is not the static one")
    endpoint_type = bits(5, 4, RO, "0: simple endpoint, 1: bus owner or bridge")


class GetEndpointIdResponse(Record, size=0x04, spec="DSP0236 1.3 §12.4"):
    """Get Endpoint ID response; the request has no parameters."""

    completion_code: int = u8("a `CompletionCode`")
    eid: int = u8("0: none yet")
    type: EndpointType = word(EndpointType)
    medium_specific: int = u8()


class GetEndpointUuidResponse(Record, size=0x11, spec="DSP0236 1.3 §12.5"):
    """Get Endpoint UUID response; the request has no parameters."""

    completion_code: int = u8("a `CompletionCode`")
    identifier: UUID = uuid()


class GetVersionSupportRequest(Record, size=0x01, spec="DSP0236 1.3 §12.6"):
    """Get MCTP Version Support request."""

    message_type: int = u8("a `MessageType`; `BASE_VERSION`: MCTP itself")


class MctpVersion(Record, size=0x04, spec="DSP0236 1.3 §12.6"):
    """A version, numbers in BCD: F1h F3h F1h 00h is 1.3.1."""

    major: int = u8("F0h and a digit, or two digits")
    minor: int = u8("F0h and a digit, or two digits")
    update: int = u8("F0h and a digit, or two digits; FFh: none")
    alpha: int = u8("an ASCII letter; 0: none")


class GetVersionSupportResponse(Record, size=0x02, spec="DSP0236 1.3 §12.6"):
    """Get MCTP Version Support response."""

    completion_code: int = u8("a `CompletionCode`")
    count: int = u8()
    versions: list[MctpVersion] = counted(MctpVersion, "count", "oldest first")


class GetMessageTypeSupportResponse(Record, size=0x02, spec="DSP0236 1.3 §12.7"):
    """Get Message Type Support response; the request has no parameters."""

    completion_code: int = u8("a `CompletionCode`")
    count: int = u8()
    types: list[int] = counted(u8, "count", "`MessageType`s, control aside")


class GetVendorMessageSupportRequest(Record, size=0x01, spec="DSP0236 1.3 §12.8"):
    """Get Vendor Defined Message Support request."""

    selector: int = u8("which set, 0 first")


class GetVendorMessageSupportResponse(Record, size=0x03, spec="DSP0236 1.3 §12.8"):
    """Get Vendor Defined Message Support response."""

    completion_code: int = u8("a `CompletionCode`")
    next_selector: int = u8("`NO_MORE_ENTRIES` after the last")
    vendor_id_format: int = u8("0: PCI, 1: IANA")
    vendor: bytes = tail("vendor ID of 2 or 4 bytes, high byte first, then two of the vendor's")


class GetRoutingTableEntriesRequest(Record, size=0x01, spec="DSP0236 1.3 §12.12"):
    """Get Routing Table Entries request."""

    handle: int = u8("0: from the first")


class GetRoutingTableEntriesResponse(Record, size=0x03, spec="DSP0236 1.3 §12.12"):
    """Get Routing Table Entries response."""

    completion_code: int = u8("a `CompletionCode`")
    next_handle: int = u8("`NO_MORE_ENTRIES` after the last")
    count: int = u8()
    entries: bytes = tail("for each a `RoutingTableEntry` and its physical address")


class RoutingEntryType(Register, width=8, spec="DSP0236 1.3 §12.12"):
    """What a routing table entry is of."""

    port = bits(4, 0, RO)
    static = bit(5, RO, "endpoint IDs were assigned statically")
    type = bits(7, 6, RO, "0: endpoint, 1: bridge and endpoints behind it, 2: bridge, 3: endpoints")


class RoutingTableEntry(Record, size=0x06, spec="DSP0236 1.3 §12.12"):
    """An entry of a routing table, before its physical address."""

    range_size: int = u8("endpoint IDs")
    first_eid: int = u8()
    type: RoutingEntryType = word(RoutingEntryType)
    binding: int = u8("Physical Transport Binding Identifier")
    medium: int = u8("Physical Media Type Identifier")
    address_size: int = u8("of the physical address that follows, in bytes")


class ResolveEndpointIdRequest(Record, size=0x01, spec="DSP0236 1.3 §12.9"):
    """Resolve Endpoint ID request."""

    eid: int = u8()


class ResolveEndpointIdResponse(Record, size=0x02, spec="DSP0236 1.3 §12.9"):
    """Resolve Endpoint ID response."""

    completion_code: int = u8("a `CompletionCode`")
    bridge_eid: int = u8("of the bridge to it, or its own")
    address: bytes = tail("physical address")
