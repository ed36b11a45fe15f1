"""Programs over the headers of the C core: what those say, and what a test does with them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import softcxl.pool
from softcxl.pool.build import compiler

CORE = Path(softcxl.pool.__file__).parent / "core"


def c_compiler() -> str:
    """The compiler that the core is built with; without one the test is skipped."""
    found = compiler()
    if found is None:
        pytest.skip("there is no C compiler")
    return found


def ran(source: Path, folder: Path, *arguments: object, core: Path = CORE) -> tuple[int, str]:
    """A test's C program, compiled with the headers in `core`: how it ended, and what it says."""
    program = folder / source.stem
    command = [
        c_compiler(),
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        f"-I{core}",
        f"-I{source.parent}",
    ]
    subprocess.run([*command, str(source), "-o", str(program)], check=True)
    result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    return result.returncode, result.stdout


def values(header: str, expressions: Iterable[str], folder: Path) -> dict[str, int]:
    """What each of these expressions is where the header is included."""
    expressions = list(expressions)
    lines = "\n".join(f'printf("%llu\\n", (unsigned long long)({one}));' for one in expressions)
    source, program = folder / "values.c", folder / "values"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "{header}"\nint main(void) {{\n{lines}\nreturn 0;\n}}\n'
    )
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{CORE}"]
    subprocess.run([c_compiler(), *flags, str(source), "-o", str(program)], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(expressions, map(int, said), strict=True))
