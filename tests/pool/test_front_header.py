"""softcxl_front.h says the same of a region's front as its declarations."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import softcxl.pool
from softcxl.pool.layout import offsets
from softcxl.spec import pool_region as spec

CORE = Path(softcxl.pool.__file__).parent / "core"
COMPILER = shutil.which("gcc") or shutil.which("cc")

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


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
def test_the_header_and_the_declarations_agree(tmp_path: Path) -> None:
    lines = "\n".join(f'printf("%llu\\n", (unsigned long long)({name}));' for name in CONSTANTS)
    source = tmp_path / "constants.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "softcxl_front.h"\nint main(void) {{\n{lines}\nreturn 0;\n}}\n'
    )
    program = tmp_path / "constants"
    words = [
        str(COMPILER),
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{CORE}",
        str(source),
        "-o",
        str(program),
    ]
    subprocess.run(words, check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    assert dict(zip(CONSTANTS, map(int, said), strict=True)) == CONSTANTS
