"""softcxl_access.h says the same of the pool access device's registers as their declarations."""

from __future__ import annotations

from pathlib import Path

from softcxl.spec import pool_access as spec
from softcxl.spec.cxl.dvsec import VENDOR_CXL
from tests.pool.header import values

REGISTERS = (
    "MAGIC",
    "VERSION",
    "STATUS",
    "CAPABILITIES",
    "DOORBELL",
    "ACKNOWLEDGE",
    "ENABLE",
    "CAUSE",
    "COMMAND",
    "RESULT",
    "SLOT",
    "LENGTH",
)
CONSTANTS = {
    "SCXL_ACCESS_VENDOR": VENDOR_CXL,
    "SCXL_ACCESS_CONTROL_ID": spec.ACCESS_CONTROL_ID,
    "SCXL_ACCESS_MEMORY_ID": spec.ACCESS_MEMORY_ID,
    "SCXL_ACCESS_MAGIC": spec.MAGIC,
    "SCXL_ACCESS_VERSION": spec.VERSION,
    "SCXL_ACCESS_PAYLOAD": spec.PAYLOAD_OFFSET,
    "SCXL_ACCESS_PAYLOAD_SIZE": spec.PAYLOAD_SIZE,
    "SCXL_ACCESS_TABLE": spec.TABLE_OFFSET,
    "SCXL_ACCESS_VECTORS": spec.VECTORS,
    "SCXL_ACCESS_NEWS": spec.NEWS,
    "SCXL_ACCESS_STATUS_READY": spec.AccessStatus.ready.mask,
    "SCXL_ACCESS_RESULT_BUSY": spec.AccessResult.busy.mask,
    "sizeof(struct scxl_access_memory)": spec.ENTRY_SIZE,
    "offsetof(struct scxl_access_memory, place)": spec.MemoryEntry.place.__layout__.offset,
    "offsetof(struct scxl_access_memory, name)": spec.ENTRY_NAME_OFFSET,
    "sizeof(((struct scxl_access_memory *)0)->name)": spec.ENTRY_NAME_SIZE,
    **{
        f"SCXL_ACCESS_REG_{name}": getattr(spec.AccessRegisters, name.lower()).__layout__.offset
        for name in REGISTERS
    },
    **{f"scxl_access_vector({at})": spec.vector_of(at) for at in (0, 56, 64, 64 * 30, 64 * 31, 1 << 40)},
}


def test_the_header_and_the_declarations_agree(tmp_path: Path) -> None:
    assert values("softcxl_access.h", CONSTANTS, tmp_path) == CONSTANTS
