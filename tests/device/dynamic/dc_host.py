"""A host that knows its commands by libcxlmi's structures (api-types.h) and QEMU's (hw/cxl/cxl-mailbox-utils.c,
include/hw/cxl/cxl_events.h)."""

from __future__ import annotations

import struct
from typing import NamedTuple
from uuid import UUID

from softcxl.device.type3 import Type3
from softcxl.testing.driver import Driver

MIB = 1 << 20
BASE = 512 * MIB
"""Where dynamic capacity begins, after 256 MiB of volatile and 256 MiB of persistent capacity."""


class Found(NamedTuple):
    """One extent of a reply or record."""

    start: int
    length: int
    tag: bytes = bytes(16)
    sequence: int = 0


class Told(NamedTuple):
    """One dynamic capacity event record."""

    handle: int
    kind: int
    validity: int
    host: int
    region: int
    more: int
    extent: Found
    extents_available: int
    tags_available: int


class DcHost:
    """What a host does with its device."""

    def __init__(self, device: Type3) -> None:
        self.driver = Driver(device)

    def configuration(self, count: int = 8, start: int = 0) -> tuple[int, bytes]:
        return self.driver.send(0x4800, struct.pack("<BB", count, start))

    def extents(self, count: int = 0xFFFFFFFF, start: int = 0) -> list[Found]:
        return self.extent_list(count, start)[3]

    def generation(self) -> int:
        return self.extent_list(0)[2]

    def extent_list(self, count: int, start: int = 0) -> tuple[int, int, int, list[Found]]:
        """(returned, total, generation, extents)"""
        code, payload = self.driver.send(0x4801, struct.pack("<II", count, start))
        assert code == 0
        returned, total, generation = struct.unpack_from("<III4x", payload)
        found = [Found(*one) for one in struct.iter_unpack("<QQ16sH6x", payload[16:])]
        assert len(found) == returned
        return returned, total, generation, found

    def accept(self, *ranges: tuple[int, int], more: bool = False) -> int:
        """Add Dynamic Capacity Response: (start, length) each."""
        return self.driver.send(0x4802, updated(*ranges, more=more))[0]

    def release(self, *ranges: tuple[int, int], more: bool = False) -> int:
        return self.driver.send(0x4803, updated(*ranges, more=more))[0]

    def events(self, *, clear: bool = True) -> list[Told]:
        """What is in the dynamic capacity event log, and it is emptied."""
        code, payload = self.driver.send(0x0100, b"\4")
        assert code == 0
        told = []
        for at in range(0x20, len(payload), 0x80):
            record = payload[at : at + 0x80]
            identifier, length, handle = struct.unpack_from("<16sB3xH", record)
            assert UUID(bytes=identifier) == UUID("ca95afa7-f183-4018-8c2f-95268e101a2a")
            assert length == 0x80
            kind, validity, host, region, more = struct.unpack_from("<BBHBB2x", record, 0x30)
            extent = Found(*struct.unpack_from("<QQ16sH6x", record, 0x38))
            told.append(
                Told(
                    handle,
                    kind,
                    validity,
                    host,
                    region,
                    more,
                    extent,
                    *struct.unpack_from("<II", record, 0x78),
                )
            )
        if clear and told:
            handles = [one.handle for one in told]
            request = struct.pack(f"<BBB3x{len(handles)}H", 4, 0, len(handles), *handles)
            assert self.driver.send(0x0101, request) == (0, b"")
        return told


def updated(*ranges: tuple[int, int], more: bool = False) -> bytes:
    """The payload of 4802h and 4803h."""
    extents = b"".join(struct.pack("<QQ8x", *one) for one in ranges)
    return struct.pack("<IB3x", len(ranges), more) + extents
