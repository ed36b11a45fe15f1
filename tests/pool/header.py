"""What a header of the C core says, as a C compiler understands it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import softcxl.pool

CORE = Path(softcxl.pool.__file__).parent / "core"


def values(header: str, expressions: Iterable[str], folder: Path) -> dict[str, int]:
    """What each of these expressions is where the header is included. The test is skipped without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    expressions = list(expressions)
    lines = "\n".join(f'printf("%llu\\n", (unsigned long long)({one}));' for one in expressions)
    source, program = folder / "values.c", folder / "values"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n"
        f'#include "{header}"\nint main(void) {{\n{lines}\nreturn 0;\n}}\n'
    )
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{CORE}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(expressions, map(int, said), strict=True))
