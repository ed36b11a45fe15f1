"""Frames of serial lines, made and taken apart by hand."""

from __future__ import annotations

import socket


def fcs(data: bytes) -> int:
    """DSP0253's check sequence, bit by bit (as RFC 1662 C.2 has it, without the complement)."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0x8408 if value & 1 else value >> 1
    return value


def framed(packet: bytes) -> bytes:
    """The frame of a packet."""
    head = bytes([1, len(packet)])
    escaped = packet.replace(b"\x7d", b"\x7d\x5d").replace(b"\x7e", b"\x7d\x5e")
    return b"\x7e" + head + escaped + fcs(head + packet).to_bytes(2, "big") + b"\x7e"


def exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes; fails where the line ends before."""
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, f"the line ended after {data.hex()}"
        data += more
    return data
