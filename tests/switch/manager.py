"""A fabric manager that speaks in bytes: opcodes and payloads, as struct cxlmi_cmd_fmapi_* of libcxlmi has them."""

from __future__ import annotations

import struct
from typing import Any

from softcxl.pci.function import Function
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import UnbindOption
from softcxl.switch.tenant import Done, Tenant

SUCCESS, STARTED, INVALID_INPUT, UNSUPPORTED, INTERNAL, RETRY, BUSY = 0, 1, 2, 3, 4, 5, 6
ABORTED, LENGTH = 0x12, 0x16
NO_LD = 0xFFFF

CEL = bytes.fromhex("0da9c0b5bf414b788f7996b1623b3f17")


class Manager:
    """One door of a switch. `sent` are the Event Notifications that it got."""

    def __init__(self, switch: Any, **options: Any) -> None:
        self.sent: list[int] = []
        self.door = switch.management(lambda request: self.sent.append(int(request.events)), **options)

    def send(self, opcode: int, payload: bytes = b"") -> tuple[int, bytes]:
        reply = self.door.execute(opcode, payload)
        return int(reply.code), reply.payload

    def bind(self, vcs: int, vppb: int, port: int, ld: int = NO_LD) -> int:
        return self.send(0x5201, struct.pack("<BBBxH", vcs, vppb, port, ld))[0]

    def unbind(self, vcs: int, vppb: int, option: int = 1) -> int:
        return self.send(0x5202, bytes([vcs, vppb, option]))[0]

    def background(self) -> tuple[int, int, int, int]:
        """In progress, percentage, opcode, return code."""
        code, payload = self.send(0x0002)
        assert code == SUCCESS
        status, opcode, result, _ = struct.unpack("<BxHHH", payload)
        return status & 1, status >> 1, opcode, result

    def ports(self, *numbers: int) -> list[bytes]:
        code, payload = self.send(0x5101, bytes([len(numbers), *numbers]))
        assert (code, payload[0]) == (SUCCESS, len(numbers))
        return [payload[at : at + 16] for at in range(4, len(payload), 16)]

    def vcs(self, *numbers: int, start: int = 0, limit: int = 255) -> bytes:
        code, payload = self.send(0x5200, bytes([start, limit, len(numbers), *numbers]))
        assert (code, payload[:4]) == (SUCCESS, bytes([len(numbers), 0, 0, 0]))
        return payload[4:]

    def events(self, log: int = 0) -> list[bytes]:
        """Records of an event log, taken out of it."""
        found: list[bytes] = []
        while True:
            code, payload = self.send(0x0100, bytes([log]))
            assert code == SUCCESS
            (count,) = struct.unpack_from("<H", payload, 20)
            records = [payload[32 + 128 * n : 160 + 128 * n] for n in range(count)]
            found += records
            if not count:
                return found
            handles = b"".join(one[20:22] for one in records)
            assert self.send(0x0101, bytes([log, 0, count, 0, 0, 0]) + handles) == (SUCCESS, b"")

    def effects(self) -> dict[int, int]:
        code, payload = self.send(0x0400)
        assert code == SUCCESS
        assert payload[8:24] == CEL
        (size,) = struct.unpack_from("<I", payload, 24)
        code, log = self.send(0x0401, CEL + struct.pack("<II", 0, size))
        assert code == SUCCESS
        return dict(struct.iter_unpack("<HH", log))

    def tunnel(self, port: int, opcode: int, payload: bytes = b"", tag: int = 0x5A) -> tuple[int, bytes]:
        """A command to what is in a port; its return code and payload."""
        message = request(opcode, payload, tag)
        code, answer = self.send(0x5300, struct.pack("<BBH", port, 0, len(message)) + message)
        assert code == SUCCESS, code
        size, reserved = struct.unpack_from("<HH", answer)
        assert (size, reserved) == (len(answer) - 4, 0)
        return response(answer[4:], opcode, tag)


def request(opcode: int, payload: bytes = b"", tag: int = 0) -> bytes:
    """struct cxlmi_cci_msg: category, tag, reserved, command, command set, 3 bytes of length, rc, vendor status."""
    return struct.pack("<BBBH", 0, tag, 0, opcode) + len(payload).to_bytes(3, "little") + bytes(4) + payload


def response(message: bytes, opcode: int, tag: int) -> tuple[int, bytes]:
    category, given, _, command = struct.unpack_from("<BBBH", message)
    assert (category, given, command) == (1, tag, opcode)
    length = int.from_bytes(message[5:8], "little") & 0x1FFFFF
    assert length == len(message) - 12
    return int.from_bytes(message[8:10], "little"), message[12:]


class Slow(Tenant):
    """A host that lets go of devices when it is told to, or never."""

    def __init__(self) -> None:
        self.has: dict[int, Function] = {}
        self.leaving: dict[int, Done] = {}
        self.refuses = False

    def plug(self, vppb: int, function: Function) -> None:
        if self.refuses:
            raise RuntimeError("no room")
        self.has[vppb] = function

    def unplug(self, vppb: int, function: Function, option: UnbindOption, done: Done) -> None:
        if option is UnbindOption.SURPRISE_HOT_REMOVE:
            del self.has[vppb]
            self.leaving.pop(vppb, None)
            done(ReturnCode.SUCCESS)
        else:
            self.leaving[vppb] = done

    def keep(self, vppb: int, function: Function) -> bool:
        return self.leaving.pop(vppb, None) is not None

    def let_go(self, vppb: int) -> None:
        del self.has[vppb]
        self.leaving.pop(vppb)(ReturnCode.SUCCESS)


def configuration(
    number: int, offset: int, enables: int = 0xF, data: int | None = None, ld: int | None = None
) -> bytes:
    """Port, then register, extended register, first byte enables and the write bit in 24 bits."""
    bits = offset & 0xFF | (offset >> 8) << 8 | enables << 12 | (data is not None) << 23
    rest = b"" if ld is None else struct.pack("<Hxx", ld)
    return bytes([number]) + bits.to_bytes(3, "little") + rest + struct.pack("<I", data or 0)
