"""`softcxl serve` killed with SIGKILL, between commands of a fabric manager and amid them: the next one has it all."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from softcxl.cli import main

PROGRAM = [sys.executable, "-c", "import sys; from softcxl.cli import main; sys.exit(main())"]
UNIT = 256 << 20
TOPOLOGY = """
state: state
devices:
  pool: {type: mld, volatile: 1GiB, persistent: 1GiB, logical_devices: [256MiB, {persistent: 256MiB}, 0, 0]}
  spare: {volatile: 256MiB}
switches:
  rack: {ports: [pool, spare, null], virtual: {left: {ports: [pool.0, null, null]}, right: {ports: [null, null]}}}
hosts:
  a: {bridges: {h: {ports: [left]}}, windows: [{size: 1GiB, targets: [h]}]}
"""


class Server:
    """A running server, until it is killed or ended."""

    def __init__(self, folder):
        self.address = f"unix:{folder}/control"
        words = ["serve", str(folder / "fabric.yaml"), "--socket", self.address, "--fm", "tcp:127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end(signal.SIGTERM)

    def end(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.communicate()[1]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "fabric.yaml").write_text(TOPOLOGY)
    return tmp_path


def fm(server, *words):
    return main(["fm", "--at", server.address, *words])


def bindings(server, capsys):
    """What each vPPB is bound to, by virtual switch and vPPB."""
    capsys.readouterr()
    assert fm(server, "switches", "--json") == 0
    return {
        (vcs["vcs"], one["vppb"]): (one["status"], one["port"], one["ld"])
        for vcs in json.loads(capsys.readouterr().out)
        for one in vcs["vppbs"]
    }


def allocations(server, capsys):
    assert fm(server, "--eid", "pool", "ld", "list", "--json") == 0
    return [(one["range1"], one["range2"]) for one in json.loads(capsys.readouterr().out)["lds"]]


FREE = ("unbound", None, None)


def test_bindings_and_allocations_of_a_killed_server(folder, capsys):
    with Server(folder) as server:
        assert fm(server, "bind", "0", "1", "0", "--ld", "1") == 0
        assert fm(server, "unbind", "0", "0") == 0
        assert fm(server, "bind", "1", "1", "1") == 0
        assert fm(server, "--eid", "pool", "ld", "allocate", "2", "512MiB,256MiB") == 0
        assert server.end(signal.SIGKILL) == ""
    with Server(folder) as server:
        assert bindings(server, capsys) == {
            (0, 0): FREE,
            (0, 1): ("bound_ld", 0, 1),
            (0, 2): FREE,
            (1, 0): FREE,
            (1, 1): ("bound_port", 1, None),
        }
        assert allocations(server, capsys) == [(UNIT, 0), (0, UNIT), (2 * UNIT, UNIT), (0, 0)]
        assert main(["journal", server.address, "--json"]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert server.end(signal.SIGTERM) == ""
    assert [one["seq"] for one in found] == list(range(1, len(found) + 1))
    assert [(one["kind"], one["subject"]) for one in found] == [
        ("started", ""),
        *((f"binding-{what}", "rack.left.0") for what in ("begun", "made")),
        *((f"binding-{what}", "rack.left.1") for what in ("begun", "made")),
        *((f"unbinding-{what}", "rack.left.0") for what in ("begun", "made")),
        *((f"binding-{what}", "rack.right.1") for what in ("begun", "made")),
        ("ld-allocated", "pool.2"),
        ("crash-seen", ""),
        ("started", ""),
    ]


def test_a_topology_that_was_edited_meanwhile(folder, capsys):
    """What has no place any more is said on stderr; the server serves the rest."""
    with Server(folder) as server:
        assert fm(server, "bind", "0", "2", "0", "--ld", "1") == 0
        server.end(signal.SIGKILL)
    (folder / "fabric.yaml").write_text(TOPOLOGY.replace("[pool.0, null, null]", "[pool.0, null]"))
    with Server(folder) as server:
        assert bindings(server, capsys) == {
            (0, 0): ("bound_ld", 0, 0),
            (0, 1): FREE,
            (1, 0): FREE,
            (1, 1): FREE,
        }
        said = server.end(signal.SIGTERM)
    assert said == (
        "softcxl: rack.left.2 to pool.1 cannot be restored: left has no vPPB 2; there are 2, from 0\n"
    )


def test_killed_while_a_fabric_manager_works(folder, capsys):
    """What was answered has happened, and of the command under way all or nothing."""
    words = {False: ("bind", "0", "1", "0", "--ld", "1"), True: ("unbind", "0", "1")}
    bound = False
    with Server(folder) as server:
        enough = threading.Event()

        def work():
            nonlocal bound
            answered = 0
            while fm(server, *words[bound]) == 0:
                bound = not bound
                answered += 1
                if answered == 5:
                    enough.set()

        manager = threading.Thread(target=work)
        manager.start()
        assert enough.wait(60)
        server.end(signal.SIGKILL)
        manager.join()
    with Server(folder) as server:
        now = bindings(server, capsys)[0, 1]
        assert now in (FREE, ("bound_ld", 0, 1))
        assert fm(server, *words[now != FREE]) == 0
        assert bindings(server, capsys)[0, 1] == (FREE if now != FREE else ("bound_ld", 0, 1))
