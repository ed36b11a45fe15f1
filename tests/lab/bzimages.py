"""Small bzImages for tests, after Documentation/arch/x86/boot.rst."""

from __future__ import annotations

import struct


def bzimage(
    payload: bytes, version: bytes = b"7.2.12-test (builder@host) #1 SMP", kernel_size: int = 0
) -> bytes:
    """A boot sector and one setup sector with a version string, then a payload at offset 64 of the protected part."""
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x300 - 0x200)
    image[0x300 : 0x300 + len(version)] = version
    whole = payload + struct.pack("<I", kernel_size)
    struct.pack_into("<II", image, 0x248, 64, len(whole))
    return bytes(image) + bytes(64) + whole


def vmlinux(direct: bool = True) -> bytes:
    """An ELF file with one note segment: Xen's PHYS32_ENTRY, by which a hypervisor enters, or another."""
    note = struct.pack("<III4sQ", 4, 8, 1, b"GNU\0", 0) + struct.pack(
        "<III4sQ", 4, 8, 18, b"Xen\0", 0x1000000
    )
    if not direct:
        note = note[:24]
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4) + note
