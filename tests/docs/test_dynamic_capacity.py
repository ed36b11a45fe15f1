"""The programs of docs/howto/dynamic-capacity.md run."""

import re
from pathlib import Path

import pytest

PROGRAMS = re.findall(r"```python\n(.*?)```", Path("docs/howto/dynamic-capacity.md").read_text(), re.DOTALL)


def test_there_are_some():
    assert len(PROGRAMS) == 3


@pytest.mark.parametrize("program", PROGRAMS, ids=["owner", "host", "hosts"])
def test_a_program(program):
    exec(compile(program, "docs/howto/dynamic-capacity.md", "exec"), {})
