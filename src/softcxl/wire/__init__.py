"""How bytes are declared: access laws, registers, blocks, register files, records. Knows no CXL."""

from softcxl.wire.block import Block, Placed, at
from softcxl.wire.describe import describe, to_plain
from softcxl.wire.errors import DeclarationError, LayoutError, RangeError, ValueUnknown, WireError
from softcxl.wire.file import RegisterFile
from softcxl.wire.hook import on_read, on_write
from softcxl.wire.item import (
    ascii,  # noqa: A004
    counted,
    i8,
    i16,
    i32,
    nested,
    raw,
    reserved,
    tail,
    u8,
    u16,
    u24,
    u32,
    u64,
    uuid,
    word,
)
from softcxl.wire.law import (
    RO,
    ROS,
    RW,
    RW1C,
    RW1CS,
    RW1S,
    RW1SS,
    RWL,
    RWLS,
    RWO,
    RWOS,
    RWS,
    HwInit,
    Law,
    Reset,
    RsvdP,
    RsvdZ,
)
from softcxl.wire.record import Record
from softcxl.wire.register import Field, Register, bit, bits

__all__ = [
    "RO", "ROS", "RW", "RW1C", "RW1CS", "RW1S", "RW1SS", "RWL", "RWLS", "RWO", "RWOS", "RWS",
    "Block", "DeclarationError", "Field", "HwInit", "Law", "LayoutError", "Placed", "RangeError", "Record",
    "Register", "RegisterFile", "Reset", "RsvdP", "RsvdZ", "ValueUnknown", "WireError",
    "ascii", "at", "bit", "bits", "counted", "describe", "i8", "i16", "i32", "nested", "on_read", "on_write",
    "raw", "reserved", "tail", "to_plain", "u8", "u16", "u24", "u32", "u64", "uuid", "word",
]  # fmt: skip
