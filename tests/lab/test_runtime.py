"""Folders for sockets: private, short, and gone with their owner."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from softcxl.lab.errors import LabError
from softcxl.lab.runtime import runtime_folder, socket_path

OWNER = """
import sys
from softcxl.lab.runtime import runtime_folder
with runtime_folder() as folder:
    (folder / "mem0.sock").write_text("")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_private_and_gone(parent: Path) -> None:
    with runtime_folder() as folder:
        assert folder.parent == parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "x").write_text("")
    assert list(parent.iterdir()) == []


def test_a_living_owners_folder_stays(parent: Path) -> None:
    with runtime_folder() as first:
        with runtime_folder() as second:
            assert first != second
        assert first.is_dir()


def test_a_killed_owners_folder_is_swept(parent: Path) -> None:
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
        text=True,
    ) as owner:
        assert owner.stdout is not None
        left = Path(owner.stdout.readline().strip())
        assert (left / "mem0.sock").exists()
        owner.send_signal(signal.SIGKILL)
    assert left.is_dir()
    with runtime_folder():
        assert not left.exists()


def test_strangers_folders_stay(parent: Path) -> None:
    (parent / "softcxl-without-lock").mkdir()
    (parent / "softcxl-link").symlink_to(parent / "softcxl-without-lock")
    with runtime_folder():
        pass
    assert sorted(path.name for path in parent.iterdir()) == ["softcxl-link", "softcxl-without-lock"]


def test_socket_paths() -> None:
    assert socket_path(Path("/run/x"), "mem0") == Path("/run/x/mem0.sock")
    # 107 bytes and the terminating zero fill sun_path
    assert len(str(socket_path(Path("/run"), "m" * 97))) == 107
    with pytest.raises(LabError, match=r"has 108 bytes and at most 107 are possible: set TMPDIR shorter"):
        socket_path(Path("/run"), "m" * 98)


def test_no_folder_to_be_had(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(parent / "gone"))
    with (
        pytest.raises(LabError, match=r"No folder for sockets can be made in .*/gone: No such file"),
        runtime_folder(),
    ):
        pass
