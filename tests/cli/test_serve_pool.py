"""Where `softcxl serve` serves a topology's pool."""

import signal
import subprocess

import pytest

import softcxl
from softcxl.cli import main
from softcxl.pool.layout import HEADER
from tests.cli.test_serve import PROGRAM, serving

POOL = "devices: {mem0: {volatile: 256MiB}}\npool: {memory: [mem0], arena: 32MiB}\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pool.yaml"
    path.write_text(POOL)
    return str(path)


def test_beside_the_control_socket(file, tmp_path):
    with serving(file, "--socket", f"unix:{tmp_path}/control") as server:
        assert server.ready["pool"] == f"unix:{tmp_path}/control.pool"
        with softcxl.connect(server.ready["pool"]) as pool, pool.allocate("1MiB") as region:
            region.write(0, b"data")
            assert region.read(0, 4) == b"data"
        assert server.end() == (0, "")


def test_at_a_place_of_ones_own(file, tmp_path):
    words = ["--socket", f"unix:{tmp_path}/control", "--pool", f"unix:{tmp_path}/elsewhere"]
    with serving(file, *words) as server:
        assert server.ready["pool"] == f"unix:{tmp_path}/elsewhere"
        softcxl.connect(server.ready["pool"]).close()
        assert server.end() == (0, "")


def test_nowhere(file, tmp_path):
    with serving(file, "--socket", f"unix:{tmp_path}/control", "--pool", "none") as server:
        assert server.ready["pool"] is None
        assert server.end() == (0, "")


@pytest.mark.parametrize(
    ("text", "given", "status", "says"),
    [
        (POOL, "tcp:127.0.0.1:1", 2, "'tcp:127.0.0.1:1' is no address; it has the form unix:PATH"),
        ("devices: {mem0: {volatile: 256MiB}}", "unix:x", 1, "x: the topology has no `pool`"),
    ],
)
def test_what_cannot_be(tmp_path, text, given, status, says):
    (tmp_path / "t.yaml").write_text(text)
    words = [*PROGRAM, "serve", "t.yaml", "--socket", "unix:control", "--pool", given]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False)
    assert (found.returncode, says in found.stderr) == (status, True), found.stderr


def test_what_a_server_of_another_version_has_left_is_named(tmp_path, capsys):
    """One that was killed leaves its files: who starts the next one has to know which to do away with."""
    path = tmp_path / "pool.yaml"
    path.write_text(f"{POOL}state: state\n")
    words = ["serve", str(path), "--socket", f"unix:{tmp_path}/control"]
    with serving(*words[1:]) as server:
        assert server.end(signal.SIGKILL)[0] == -signal.SIGKILL
    folder = tmp_path / "state" / "pool"
    (arena,) = folder.glob("arena*")
    with arena.open("r+b") as file:
        file.seek(HEADER["version"])
        file.write((99).to_bytes(4, "little"))
    assert main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"softcxl: pool: {folder}: the arena is of no pool of version")
    assert said.endswith("version 99; without that folder the pool begins anew, and empty\n")
