"""The session of docs/howto/fabric-manager.md is what happens: each command in its order, and what it prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import softcxl
from softcxl.cli import main

PAGE = Path("docs/howto/fabric-manager.md").read_text()


def session() -> list[tuple[str, str]]:
    """Commands and what they print, but for those to a server or an endpoint elsewhere."""
    found = []
    for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            if command.startswith("softcxl fm") and "--at" not in command:
                found.append((command, printed))
    return found


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's topology, served as the page does it, in its folder."""
    (topology,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "rack.yaml").write_text(topology)
    (serve,) = re.findall(r"^\$ softcxl (serve .*) &$", PAGE, re.MULTILINE)
    (address,) = re.findall(r"^\$ export SOFTCXL_FM=(.*)$", PAGE, re.MULTILINE)
    program = f"import sys; from softcxl.cli import main; sys.exit(main({shlex.split(serve)}))"
    ours = os.environ | {"PYTHONPATH": str(Path(softcxl.__file__).parents[1])}  # whatever the folder
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=ours, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            assert "serving rack.yaml" in server.stdout.readline()
            monkeypatch.chdir(tmp_path)
            monkeypatch.setenv("SOFTCXL_FM", address)
            yield
        finally:
            server.terminate()
            assert server.wait(300) == 0


def test_the_session(served: None, capsys: pytest.CaptureFixture[str]) -> None:
    commands = session()
    assert len(commands) > 15
    for command, printed in commands:
        status = main(shlex.split(command)[1:])
        out, err = capsys.readouterr()
        if printed.startswith("softcxl: "):
            assert (status, out, err) == (1, "", printed), command
            continue
        assert (status, err) == (0, ""), command
        # a line of … stands for any number of lines
        lines = printed.splitlines()
        wanted = "".join("(?:.*\n)*" if one == "…" else f"{re.escape(one)}\n" for one in lines)
        assert re.fullmatch(wanted, out), f"{command}\n{out}"
