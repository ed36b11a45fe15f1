"""`softcxl journal`: of a file's state folder, and of a live server."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from softcxl.cli import journal as command
from softcxl.cli import main
from softcxl.cli.verbs import VERBS
from softcxl.fabric.build import Fabric
from softcxl.fabric.control import Service
from softcxl.fabric.hosts import Hosts
from softcxl.fabric.journal import read
from softcxl.transport.control import Door

# Ctrl-C is as a shell in a terminal leaves it, whoever runs the tests.
CODE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from softcxl.cli import main
sys.exit(main())
"""
PROGRAM = [sys.executable, "-c", CODE]
TEXT = "devices: {mem0: {volatile: 256MiB}}\n"
STATE = TEXT + "state: state\n"


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")  # times are UTC wherever we are
    time.tzset()


def today():
    return time.strftime("%Y-%m-%dT", time.gmtime())


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_a_folder_that_nobody_has_used_yet(tmp_path, capsys):
    (tmp_path / "fabric.yaml").write_text(STATE)
    assert main(["journal", str(tmp_path / "fabric.yaml")]) == 0
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "state").exists()


def test_what_happened_to_a_fabric(given, capsys):
    """No host is in it, and none is needed."""
    days = [today()]
    topology = given(STATE)
    if not topology.startswith("unix:"):
        Fabric.load(topology).close()
    days.append(today())
    assert main(["journal", topology, "--json"]) == 0
    found = [json.loads(line) for line in lines(capsys)]
    assert found[0] == {"seq": 1, "time": found[0]["time"], "kind": "started", "subject": "", "detail": {}}
    assert found[0]["time"][:11] in days
    assert main(["journal", topology]) == 0
    assert lines(capsys)[0].split() == ["1", found[0]["time"], "started"]
    assert main(["journal", topology, "--since", "1"]) == 0
    assert [line.split()[2] for line in lines(capsys)] == (
        [] if topology.startswith("unix:") else ["stopped"]
    )


def test_a_server_without_a_state_folder(tmp_path, capsys):
    (tmp_path / "fabric.yaml").write_text(TEXT)
    assert main(["journal", str(tmp_path / "fabric.yaml")]) == 1
    assert capsys.readouterr().err == (
        f"softcxl: {tmp_path}/fabric.yaml: it has no `state` folder, so that its journal is its server's alone "
        "(softcxl journal unix:PATH)\n"
    )


def test_more_rows_than_one_answer_has(tmp_path, capsys, monkeypatch):
    """A server without a state folder, whose journal is in memory."""
    monkeypatch.setattr(command, "_PART", 7)
    with Fabric.loads(TEXT) as fabric:
        for _ in range(20):
            fabric.store.journal.add("reset", "mem0")
        with Door(Service(Hosts(fabric, "fabric", tmp_path), VERBS), tmp_path / "control") as door:
            assert main(["journal", f"unix:{door.path}", "--json"]) == 0
    assert [json.loads(line)["seq"] for line in lines(capsys)] == list(range(1, 22))


def test_rows_that_are_no_longer_kept_are_missed(tmp_path, capsys):
    (tmp_path / "fabric.yaml").write_text(STATE)
    with Fabric.load(tmp_path / "fabric.yaml") as fabric, fabric.store.database.transaction() as connection:
        fabric.store.journal.add("reset")
        connection.execute("DELETE FROM journal WHERE seq = 1")
    assert main(["journal", str(tmp_path / "fabric.yaml")]) == 0
    out, err = capsys.readouterr()
    assert out.split()[0] == "2"
    assert err == "softcxl: 1 to 1 are no longer kept\n"


def test_a_damaged_file(tmp_path, capsys):
    (tmp_path / "fabric.yaml").write_text(STATE)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "fabric.db").write_bytes(b"x" * 9000)
    assert main(["journal", str(tmp_path / "fabric.yaml")]) == 1
    assert capsys.readouterr().err.startswith(f"softcxl: {tmp_path}/state/fabric.db: is damaged")


def test_what_cannot_be_asked_for(given, capsys):
    topology = given(STATE)
    assert main(["journal", topology, "--since", "-1"]) == 2
    assert "-1 is not in the range" in capsys.readouterr().err
    assert main(["journal", topology, "--since", str(1 << 70)]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("from_server", [False, True], ids=["file", "server"])
def test_following_a_server(tmp_path, from_server):
    """Another process sees what happens while it happens; it ends when it is interrupted, or the server ends."""
    (tmp_path / "fabric.yaml").write_text(STATE)
    file, address = str(tmp_path / "fabric.yaml"), f"unix:{tmp_path}/socket"
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    serve = [*PROGRAM, "serve", file, "--socket", address]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        given = address if from_server else file
        follow = [*PROGRAM, "journal", given, "--follow", "--json"]
        with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            assert json.loads(follower.stdout.readline())["kind"] == "started"
            server.terminate()
            if from_server:
                _, err = follower.communicate()
                assert "no server listens there" in err or "has gone" in err
                assert follower.returncode == 3
            else:
                assert json.loads(follower.stdout.readline())["kind"] == "stopped"
                follower.send_signal(signal.SIGINT)
                _, err = follower.communicate()
                assert (follower.returncode, err.strip()) == (130, "softcxl: interrupted")
    assert server.returncode == 0
    assert [entry.kind for entry in read(tmp_path / "state")] == ["started", "stopped"]
