"""What pages say can be typed is there: Python blocks run, commands are commands with those options."""

import re
import shlex
from pathlib import Path

import click
import pytest

from softcxl.cli import cli
from softcxl.cli.serve_pool import serve_pool
from softcxl.fabric.build import Fabric

PAGES = [
    Path("README.md"),
    *(one for one in sorted(Path("docs").rglob("*.md")) if "generated" not in one.parts),
]

# A guest takes minutes, and tests are run by pytest (tests/testing/test_plugin.py).
ELSEWHERE = ("boot(fabric)", "def test_")


def blocks():
    for page in PAGES:
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            if not any(word in block for word in ELSEWHERE):
                yield pytest.param(block, id=f"{page.name}-{number}")


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A pool that `softcxl.connect()` finds."""
    topology = tmp_path / "pool.yaml"
    topology.write_text(
        "{devices: {a: {volatile: 256MiB}, b: {volatile: 256MiB}}, pool: {memory: [a, b], arena: 64MiB}}"
    )
    with Fabric.load(topology, serves=True) as fabric, serve_pool(fabric, tmp_path / "control") as address:
        monkeypatch.setenv("SOFTCXL_POOL", address)
        yield


@pytest.mark.parametrize("block", list(blocks()))
def test_python_blocks_run(block, capsys, request):
    if "softcxl.connect(" in block:
        request.getfixturevalue("pool")
    exec(compile(block, "<page>", "exec"), {})


def commands():
    for page in PAGES:
        for line in re.findall(
            r"(?:^(?:\$ )?(?:\.venv/bin/)?|`)(softcxl [^`\n|#]+)", page.read_text(), re.MULTILINE
        ):
            yield pytest.param(line.strip(), id=f"{page.name}: {line.strip()[:60]}")


@pytest.mark.parametrize("line", list(commands()))
def test_commands_are_there_with_these_options(line):
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {
        "--help"
    }
    for word in words:
        if word == "--":
            break
        # -vvv and -BM are several in one
        if word.startswith("--"):
            assert word.partition("=")[0] in known, line
        elif re.fullmatch(r"-[A-Za-z]+", word):
            assert all(f"-{letter}" in known for letter in word[1:]), line
