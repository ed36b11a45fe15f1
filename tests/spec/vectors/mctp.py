"""MCTP, by Linux `include/net/mctp.h`, `drivers/net/mctp/mctp-serial.c`, `mctp-i2c.c` and libcxlmi `api-types.h`;
control messages, by mctpd's `mctp-control-spec.h`, after their two header bytes. Every field has a value of its own."""

from __future__ import annotations

from uuid import UUID

from softcxl.spec.mctp import cci, control, i2c, packet, serial, tcp
from tests.spec.vectors import Mask, Payload, c

_ID = UUID("00112233-4455-6677-8899-aabbccddeeff")
_ID_BYTES = bytes.fromhex("00112233445566778899aabbccddeeff")

PAYLOADS = [
    Payload(
        "Linux mctp_hdr",
        packet.PacketHeader,
        c("BBBB", 1, 9, 8, 1 << 7 | 2 << 4 | 1 << 3 | 5),
        {
            "version.header_version": 1,
            "destination": 9,
            "source": 8,
            "flags.start_of_message": True,
            "flags.end_of_message": False,
            "flags.sequence": 2,
            "flags.tag_owner": True,
            "flags.tag": 5,
        },
    ),
    Payload(
        "libcxlmi cxlmi_cci_msg",
        cci.CciMessageHeader,
        c("BBxBB3sHH", 1, 0x42, 0x01, 0x51, (0x0102 | 1 << 23).to_bytes(3, "little"), 0x0304, 0x0506),
        {
            "category.category": cci.CciCategory.RESPONSE,
            "tag": 0x42,
            "opcode": 0x5101,
            "payload.length": 0x0102,
            "payload.background_operation": True,
            "return_code": 0x0304,
            "vendor_status": 0x0506,
        },
    ),
    # Control
    Payload(
        "mctpd mctp_ctrl_msg_hdr",
        control.ControlHeader,
        c("BB", 1 << 7 | 0x15, 2),
        {
            "instance.request": True,
            "instance.datagram": False,
            "instance.instance": 0x15,
            "command": control.ControlCommand.GET_ENDPOINT_ID,
        },
    ),
    Payload(
        "mctpd mctp_ctrl_resp",
        control.Completion,
        c("B", 5),
        {"completion_code": control.CompletionCode.UNSUPPORTED_COMMAND},
    ),
    Payload(
        "mctpd mctp_ctrl_cmd_set_eid",
        control.SetEndpointIdRequest,
        c("BB", 1, 9),
        {"operation": control.SetEndpointIdOperation.FORCE, "eid": 9},
    ),
    Payload(
        "mctpd mctp_ctrl_resp_set_eid",
        control.SetEndpointIdResponse,
        c("BBBB", 0, 1 << 4 | 2, 9, 3),
        {
            "completion_code": control.CompletionCode.SUCCESS,
            "status.rejected": 1,
            "status.pool": 2,
            "eid": 9,
            "pool_size": 3,
        },
    ),
    Payload(
        "mctpd mctp_ctrl_resp_get_eid",
        control.GetEndpointIdResponse,
        c("BBBB", 4, 9, 1 << 4 | 1, 7),
        {
            "completion_code": control.CompletionCode.NOT_READY,
            "eid": 9,
            "type.endpoint_type": 1,
            "type.id_type": 1,
            "medium_specific": 7,
        },
    ),
    Payload(
        "mctpd mctp_ctrl_resp_get_uuid",
        control.GetEndpointUuidResponse,
        c("B16s", 1, _ID_BYTES),
        {"completion_code": control.CompletionCode.ERROR, "identifier": _ID},
    ),
    Payload(
        "mctpd mctp_ctrl_cmd_get_mctp_ver_support",
        control.GetVersionSupportRequest,
        c("B", 0xFF),
        {"message_type": control.BASE_VERSION},
    ),
    Payload(
        "mctpd version_entry",
        control.MctpVersion,
        c("BBBB", 0xF1, 0xF3, 0xF2, 0x61),
        {"major": 0xF1, "minor": 0xF3, "update": 0xF2, "alpha": 0x61},
    ),
    Payload(
        "mctpd mctp_ctrl_resp_get_mctp_ver_support",
        control.GetVersionSupportResponse,
        c("BB", 0x80, 1) + c("BBBB", 0xF1, 0xF3, 0xFF, 0),
        {
            "completion_code": control.CompletionCode.UNSUPPORTED_MESSAGE_TYPE,
            "count": 1,
            "versions.0.update": 0xFF,
        },
    ),
    Payload(
        "mctpd mctp_ctrl_resp_get_msg_type_support",
        control.GetMessageTypeSupportResponse,
        c("BBBB", 3, 2, 7, 8),
        {
            "completion_code": control.CompletionCode.INVALID_LENGTH,
            "count": 2,
            "types": [packet.MessageType.CXL_FM_API, packet.MessageType.CXL_CCI],
        },
    ),
    Payload(
        "mctpd mctp_ctrl_cmd_get_vdm_support",
        control.GetVendorMessageSupportRequest,
        c("B", 3),
        {"selector": 3},
    ),
    Payload(
        "mctpd mctp_pci_ctrl_resp_get_vdm_support",
        control.GetVendorMessageSupportResponse,
        c("BBB", 2, 0xFF, 0) + b"\x1e\x98\x00\x01",
        {
            "completion_code": control.CompletionCode.INVALID_DATA,
            "next_selector": control.NO_MORE_ENTRIES,
            "vendor_id_format": 0,
            "vendor": b"\x1e\x98\x00\x01",
        },
    ),
    Payload(
        "mctpd mctp_ctrl_cmd_get_routing_table",
        control.GetRoutingTableEntriesRequest,
        c("B", 3),
        {"handle": 3},
    ),
    Payload(
        "mctpd get_routing_table_entry",
        control.RoutingTableEntry,
        c("BBBBBB", 1, 9, 1 << 6 | 1 << 5 | 3, 5, 6, 7),
        {
            "range_size": 1,
            "first_eid": 9,
            "type.type": 1,
            "type.static": True,
            "type.port": 3,
            "binding": 5,
            "medium": 6,
            "address_size": 7,
        },
    ),
    Payload(
        "mctpd mctp_ctrl_resp_get_routing_table",
        control.GetRoutingTableEntriesResponse,
        c("BBB", 0, 0xFF, 1) + b"entries",
        {
            "completion_code": 0,
            "next_handle": control.NO_MORE_ENTRIES,
            "count": 1,
            "entries": b"entries",
        },
    ),
    Payload(
        "mctpd mctp_ctrl_cmd_resolve_endpoint_id", control.ResolveEndpointIdRequest, c("B", 9), {"eid": 9}
    ),
    Payload(
        "mctpd mctp_ctrl_resp_resolve_endpoint_id",
        control.ResolveEndpointIdResponse,
        c("BB", 0, 8) + b"\x1d",
        {"completion_code": 0, "bridge_eid": 8, "address": b"\x1d"},
    ),
    # Bindings
    Payload(
        "Linux mctp_serial_tx_work, STATE_HEADER",
        serial.SerialHeader,
        c("BBB", 0x7E, 1, 0x44),
        {"flag": serial.FLAG, "revision": 1, "byte_count": 0x44},
    ),
    Payload(
        "Linux mctp_serial_tx_work, STATE_TRAILER",
        serial.SerialTrailer,
        c("BBB", 0x12, 0x34, 0x7E),
        {"fcs": b"\x12\x34", "flag": serial.FLAG},
    ),
    Payload(
        "Linux mctp_i2c_hdr",
        i2c.I2cHeader,
        c("BBBB", 0x1D << 1, 0x0F, 0x45, 0x10 << 1 | 1),
        {
            "destination.address": 0x1D,
            "destination.read": False,
            "command": i2c.COMMAND_CODE,
            "byte_count": 0x45,
            "source.address": 0x10,
            "source.mctp": True,
        },
    ),
]

_flags = packet.PacketFlags
MASKS = [
    Mask("MCTP_HDR_VER_MASK", packet.PacketVersion.header_version, 0xF),
    Mask("MCTP_HDR_FLAG_SOM", _flags.start_of_message, 1 << 7),
    Mask("MCTP_HDR_FLAG_EOM", _flags.end_of_message, 1 << 6),
    Mask("MCTP_HDR_FLAG_TO", _flags.tag_owner, 1 << 3),
    Mask("MCTP_HDR_SEQ_MASK << MCTP_HDR_SEQ_SHIFT", _flags.sequence, 3 << 4),
    Mask("MCTP_HDR_TAG_MASK", _flags.tag, 7),
    Mask("MCTP_CTRL_HDR_FLAG_REQUEST", control.ControlInstance.request, 1 << 7),
    Mask("MCTP_CTRL_HDR_FLAG_DGRAM", control.ControlInstance.datagram, 1 << 6),
    Mask("MCTP_CTRL_HDR_INSTANCE_ID_MASK", control.ControlInstance.instance, 0x1F),
    Mask("MCTP_EID_ASSIGNMENT_STATUS_MASK", control.EndpointIdStatus.rejected, 3 << 4),
    Mask("MCTP_ENDPOINT_TYPE_MASK", control.EndpointType.endpoint_type, 3 << 4),
    Mask("MCTP_ENDPOINT_ID_TYPE_MASK", control.EndpointType.id_type, 3),
    Mask("MCTP_ROUTING_ENTRY_PORT_MASK", control.RoutingEntryType.port, 0x1F),
    Mask("MCTP_ROUTING_ENTRY_ASSIGNMENT_TYPE_MASK", control.RoutingEntryType.static, 1 << 5),
    Mask("MCTP_ROUTING_ENTRY_TYPE_MASK", control.RoutingEntryType.type, 3 << 6),
]

# (source, member, value)
NUMBERS = [
    ("MCTP_VER_MIN", packet.HEADER_VERSION, 1),
    ("MCTP_ADDR_NULL", packet.NULL_EID, 0x00),
    ("mctp_address_unicast", packet.FIRST_EID, 8),
    ("mctp_address_broadcast", packet.BROADCAST_EID, 255),
    ("MCTP_TYPE_CXL_FMAPI", packet.MessageType.CXL_FM_API, 7),
    ("MCTP_TYPE_CXL_CCI", packet.MessageType.CXL_CCI, 8),
    ("MCTP_CTRL_HDR_MSG_TYPE", packet.MessageType.CONTROL, 0),
    ("MCTP_CTRL_CMD_SET_ENDPOINT_ID", control.ControlCommand.SET_ENDPOINT_ID, 0x01),
    ("MCTP_CTRL_CMD_GET_ENDPOINT_UUID", control.ControlCommand.GET_ENDPOINT_UUID, 0x03),
    ("MCTP_CTRL_CMD_GET_VERSION_SUPPORT", control.ControlCommand.GET_VERSION_SUPPORT, 0x04),
    ("MCTP_CTRL_CMD_GET_MESSAGE_TYPE_SUPPORT", control.ControlCommand.GET_MESSAGE_TYPE_SUPPORT, 0x05),
    ("MCTP_CTRL_CMD_GET_VENDOR_MESSAGE_SUPPORT", control.ControlCommand.GET_VENDOR_MESSAGE_SUPPORT, 0x06),
    ("MCTP_CTRL_CMD_RESOLVE_ENDPOINT_ID", control.ControlCommand.RESOLVE_ENDPOINT_ID, 0x07),
    ("MCTP_CTRL_CMD_GET_ROUTING_TABLE_ENTRIES", control.ControlCommand.GET_ROUTING_TABLE_ENTRIES, 0x0A),
    ("MCTP_CTRL_CMD_PREPARE_ENDPOINT_DISCOVERY", control.ControlCommand.PREPARE_ENDPOINT_DISCOVERY, 0x0B),
    ("MCTP_CTRL_CMD_ENDPOINT_DISCOVERY", control.ControlCommand.ENDPOINT_DISCOVERY, 0x0C),
    ("MCTP_CTRL_CMD_DISCOVERY_NOTIFY", control.ControlCommand.DISCOVERY_NOTIFY, 0x0D),
    ("MCTP_CTRL_CMD_RESOLVE_UUID", control.ControlCommand.RESOLVE_UUID, 0x10),
    ("mctp_ctrl_cmd_set_eid_reset_eid", control.SetEndpointIdOperation.RESET, 2),
    ("mctp_ctrl_cmd_set_eid_set_discovered_flag", control.SetEndpointIdOperation.SET_DISCOVERED, 3),
    ("BYTE_ESC", serial.ESCAPE, 0x7D),
    ("mctp_serial_tx_work: c & ~0x20", serial.ESCAPE_MASK, 0x20),
    ("FCS_INIT", serial.FCS_INITIAL, 0xFFFF),
    ("crc_ccitt_table entry 128", serial.FCS_POLYNOMIAL, 0x8408),
    ("MCTP_SERIAL_MTU", serial.MAX_PACKET, 68),
    ("MCTP_I2C_MAXBLOCK", i2c.MAX_BYTE_COUNT, 255),
    ("i2c-core-smbus POLY, x^8 at bit 15 and left out", i2c.PEC_POLYNOMIAL, (0x1070 << 3 >> 7) & 0xFF),
    ("jack: packets on the wire", tcp.PACKET_SIZE, 68),
    ("jack: default port", tcp.DEFAULT_PORT, 2508),
]
