"""The C headers: they stand alone, say what `softcxl.pool.layout` says, and a program in C can use them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from softcxl.pool import layout
from tests.pool.directory import Directory
from tests.pool.header import c_compiler

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src/softcxl/pool/core"
HEADERS = ["softcxl_pool.h", "softcxl_calls.h", "softcxl_directory.h", "softcxl_region.h"]

STRUCTURES = {
    "scxl_header": (layout.HEADER, 4096),
    "scxl_source": (layout.SOURCE, 64),
    "scxl_slot": (layout.SLOT, 256),
    "scxl_region": (layout.REGION, 256),
}
# What C calls otherwise.
NAMES = {
    ("scxl_header", "ready"): "boot",
    ("scxl_region", "sequence"): "seq",
    ("scxl_region", "waiting"): "waiting.waiting",
    ("scxl_region", "remote"): "waiting.remote",
    **{("scxl_region", f"extent{copy}"): f"extents[{copy}]" for copy in range(layout.MAX_COPIES)},
    **{("scxl_slot", f"intent{number}"): f"intents[{number - 1}]" for number in range(1, 5)},
}


@pytest.fixture
def cc() -> list[str]:
    return [c_compiler(), "-O2", "-Wall", "-Wextra", "-Werror", f"-I{CORE}"]


@pytest.mark.parametrize("standard", ["c11", "gnu11", "gnu17"])
@pytest.mark.parametrize("header", HEADERS)
def test_a_header_stands_alone(header: str, standard: str, cc: list[str], tmp_path: Path) -> None:
    source = tmp_path / "alone.c"
    source.write_text(f'#include "{header}"\n#include "{header}"\nint main(void) {{ return 0; }}\n')
    subprocess.run(
        [*cc, "-pedantic", f"-std={standard}", str(source), "-o", str(tmp_path / "alone")], check=True
    )


def test_a_kernel_module_can_use_them(cc: list[str], tmp_path: Path) -> None:
    """With the kernel's names of headers, no library, and registers that a kernel may use."""
    (tmp_path / "linux").mkdir()
    includes = {
        "stddef.h": "#include <stddef.h>",
        "types.h": "#include <stdbool.h>\n#include <stdint.h>",
        "string.h": "void *memcpy(void *, const void *, __SIZE_TYPE__);\nvoid *memset(void *, int, __SIZE_TYPE__);",
    }
    for name, text in includes.items():
        (tmp_path / "linux" / name).write_text(f"#pragma once\n{text}\n")
    source = tmp_path / "module.c"
    source.write_text(
        '#include "softcxl_calls.h"\n'
        '#include "softcxl_region.h"\n'
        "int swap(struct scxl_opened *one, char *bytes)\n{\n"
        "\treturn scxl_region_write(one, 0, bytes, 64) + scxl_region_read(one, 0, bytes, 64, 0);\n}\n"
    )
    flags = ["-std=gnu11", "-ffreestanding", "-D__KERNEL__", "-mgeneral-regs-only", f"-I{tmp_path}", "-c"]
    subprocess.run([*cc, *flags, str(source), "-o", str(tmp_path / "module.o")], check=True)


def test_both_languages_have_the_same_layout(cc: list[str], tmp_path: Path) -> None:
    lines, expected = [], []
    for structure, (offsets, size) in STRUCTURES.items():
        lines.append(f'printf("{structure} %zu\\n", sizeof(struct {structure}));')
        expected.append(f"{structure} {size}")
        for name, offset in offsets.items():
            if not name.startswith("_"):
                field = NAMES.get((structure, name), name)
                lines.append(f'printf("{structure}.{name} %zu\\n", offsetof(struct {structure}, {field}));')
                expected.append(f"{structure}.{name} {offset}")
    constants = {
        "SCXL_VERSION": layout.VERSION,
        "SCXL_COPIES": layout.MAX_COPIES,
        "SCXL_POOL_MAGIC": layout.MAGIC,
        "SCXL_LINE": layout.LINE,
        "SCXL_REGION_KEPT": layout.RegionFlag.KEPT,
        "SCXL_REGION_ATOMIC": layout.RegionFlag.ATOMIC,
        "SCXL_REGION_CHANNEL": layout.RegionFlag.CHANNEL,
        "SCXL_REGION_LIVE": layout.RegionState.LIVE,
        "SCXL_REGION_LEAVING": layout.RegionState.LEAVING,
        "SCXL_SLOT_LIVE": layout.SlotState.LIVE,
        "SCXL_SLOT_DEAD": layout.SlotState.DEAD,
        "SCXL_HEALTHY": layout.SourceState.HEALTHY,
        "SCXL_BROKEN": layout.SourceState.FAILED,
    }
    for name, value in constants.items():
        lines.append(f'printf("{name} %llu\\n", (unsigned long long){name});')
        expected.append(f"{name} {int(value)}")
    source = tmp_path / "layout.c"
    body = "\n".join(f"\t{line}" for line in lines)
    source.write_text(f'#include <stdio.h>\n#include "softcxl_region.h"\nint main(void)\n{{\n{body}\n}}\n')
    subprocess.run([*cc, "-std=gnu11", str(source), "-o", str(tmp_path / "layout")], check=True)
    printed = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == expected


@pytest.fixture
def program(cc: list[str], tmp_path: Path) -> Path:
    """examples/pool_region.c, built as its first lines say."""
    built = tmp_path / "pool_region"
    source = shutil.copy(ROOT / "examples/pool_region.c", tmp_path)
    subprocess.run([*cc, "-std=gnu11", str(source), "-o", str(built)], check=True)
    return built


def files_of(pool: Directory, folder: Path) -> list[str]:
    paths = []
    for number, buffer in enumerate(pool.buffers):
        path = folder / f"source{number}"
        path.write_bytes(buffer[:])
        paths.append(str(path))
    return paths


def run(program: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_program_in_c_reads_a_region(program: Path, tmp_path: Path) -> None:
    pool = Directory(sources=2)
    pool.region(0, copies=2)
    at = pool.region(3, size=4096)
    pool.arena[at + 192 : at + 200] = b"greeting"
    pool.open(3).write(0, b"hello from Python\n")
    files = files_of(pool, tmp_path)
    code, out, err = run(program, *files)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "       0         65536 bytes  2 of 2 copies  -",
        "       3          4096 bytes  1 of 1 copies  greeting",
    ]
    code, out, err = run(program, "-r", "greeting", *files)
    assert (code, out.rstrip("\0"), err) == (0, "hello from Python\n", "")


def test_what_it_cannot_read_it_says(program: Path, tmp_path: Path) -> None:
    pool = Directory(sources=1)
    at = pool.region(3, size=4096)
    pool.arena[at + 192 : at + 200] = b"greeting"
    files = files_of(pool, tmp_path)
    assert run(program) == (2, "", f"usage: {program} [-r REGION] ARENA [SOURCE]...\n")
    assert run(program, "-r", "other", *files) == (1, "", "other: there is no such region\n")
    assert run(program, "-r", "greeting", files[0]) == (
        1,
        "",
        "greeting: it lies in memory that was not given\n",
    )
    absent = str(tmp_path / "absent")
    assert run(program, absent) == (1, "", f"{absent}: No such file or directory\n")
    assert run(program, files[1]) == (1, "", f"{files[1]}: no pool is there, or one of another version\n")
