"""softcxl_front.h says the same of a region's front as its declarations."""

from __future__ import annotations

from pathlib import Path

from softcxl.pool.layout import offsets
from softcxl.spec import pool_region as spec
from tests.pool.header import values

STRUCTS = {"scxl_front": spec.FrontHeader, "scxl_piece": spec.PieceEntry, "scxl_cell": spec.CellHead}
CONSTANTS = {
    "SCXL_FRONT_MAGIC": spec.MAGIC,
    "SCXL_FRONT_VERSION": spec.VERSION,
    "SCXL_FRONT_SIZE": spec.ALIGNMENT,
    "SCXL_FRONT_DEVICE_ID": spec.POOL_MEMORY_ID,
    "SCXL_CELL_SIZE": spec.CELL_SIZE,
    "sizeof(struct scxl_front)": 64,
    "sizeof(struct scxl_piece)": 64,
    "sizeof(struct scxl_cell)": spec.CELL_SIZE,
    "offsetof(struct scxl_cell, payload)": spec.HEAD_SIZE,
    **{f"SCXL_CELL_{one.name}": one.value for one in spec.CellState},
    **{
        f"offsetof(struct {struct}, {name})": at
        for struct, record in STRUCTS.items()
        for name, at in offsets(record).items()
        if not name.startswith("_")
    },
}


def test_the_header_and_the_declarations_agree(tmp_path: Path) -> None:
    assert values("softcxl_front.h", CONSTANTS, tmp_path) == CONSTANTS
