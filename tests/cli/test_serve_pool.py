"""Where `softcxl serve` serves a topology's pool."""

import subprocess

import pytest

import softcxl
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
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (found.returncode, says in found.stderr) == (status, True), found.stderr
