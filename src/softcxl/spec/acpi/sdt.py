"""What every ACPI table begins with."""

from __future__ import annotations

from softcxl.wire import Record, ascii, u8, u32  # noqa: A004


class SdtHeader(Record, size=0x24, spec="ACPI 6.5 §5.2.6"):
    """System Description Table Header."""

    signature: str = ascii(4)
    length: int = u32("of the whole table, in bytes")
    revision: int = u8("of the table's format")
    checksum: int = u8("makes the bytes of the table add up to zero, modulo 256")
    oem_id: str = ascii(6)
    oem_table_id: str = ascii(8)
    oem_revision: int = u32("a larger one replaces a smaller one")
    creator_id: str = ascii(4)
    creator_revision: int = u32()
