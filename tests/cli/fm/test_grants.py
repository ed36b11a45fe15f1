"""`softcxl fm grant` and its siblings at a server that has a pool: what is granted, taken, and found again."""

import json
import signal

import pytest

from softcxl.cli import main
from tests.cli.test_serve import serving

TOPOLOGY = """\
devices:
  mem0: {volatile: 256MiB}
  shared: {type: mld, volatile: 512MiB, logical_devices: [0, 0]}
switches:
  rack: {ports: [shared], virtual: {left: {ports: [null]}, right: {ports: [null]}}}
hosts:
  a: {bridges: {hb: {ports: [left]}}, windows: [{size: 1GiB, targets: [hb]}]}
  b: {bridges: {hb: {ports: [right]}}, windows: [{size: 1GiB, targets: [hb]}]}
pool: {memory: [mem0], arena: 32MiB}
state: state
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "rack.yaml"
    path.write_text(TOPOLOGY)
    return str(path)


@pytest.fixture
def words(tmp_path):
    return ["--socket", f"unix:{tmp_path}/control"]


@pytest.fixture
def fm(capsys):
    """Runs `softcxl fm` at a server: its status, and what it printed."""

    def run(server, *given):
        status = main(["fm", "--at", server.address, *map(str, given)])
        out, err = capsys.readouterr()
        return status, out if status == 0 else err

    return run


def seen(server, capsys, kind):
    """What the journal has of a kind, once it has any."""
    capsys.readouterr()
    since = 0
    while True:
        request = ["journal", server.address, "--json"]
        assert main(request) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        found = [one for one in rows if one["kind"] == kind]
        if found:
            return found
        assert len(rows) >= since
        since = len(rows)


def test_granted_listed_renewed_and_revoked(file, words, fm):
    with serving(file, *words) as server:
        status, out = fm(server, "grant", "1MiB", "b", "--lease", 1000, "--json")
        assert status == 0
        made = json.loads(out)
        assert (made["number"], made["host"], made["size"], made["state"]) == (1, "b", 256 << 20, "granted")
        assert made["ld"] == {"switch": "rack", "vcs": 1, "vppb": 0, "port": 0, "ld": 0}
        _, out = fm(server, "grants")
        assert out.splitlines()[1].split()[:4] == ["1", "b", "256MiB", "granted"]
        assert "LD 0 of port 0 of rack" in out
        assert fm(server, "renew", 1)[0] == 0
        assert fm(server, "revoke", 1) == (0, "grant 1 is no more\n")
        assert json.loads(fm(server, "grants", "--json")[1]) == []
        assert fm(server, "renew", 1) == (1, "softcxl: there is no grant 1; there are none\n")
        assert server.end() == (0, "")


def test_a_lease_that_runs_out_is_in_the_journal(file, words, fm, capsys):
    with serving(file, *words) as server:
        assert fm(server, "grant", "1MiB", "a", "--lease", 0.01)[0] == 0
        (fenced,) = seen(server, capsys, "grant-fenced")
        assert (fenced["subject"], fenced["detail"]["reason"]) == ("a", "its lease has run out")
        kinds = [one["kind"] for one in seen(server, capsys, "grant-lease-ended")]
        assert kinds == ["grant-lease-ended"]
        assert json.loads(fm(server, "grants", "--json")[1]) == []


def test_a_killed_server_s_grants_are_the_next_one_s(file, words, fm):
    with serving(file, *words) as server:
        assert fm(server, "grant", "512MiB", "b", "--lease", 1000)[0] == 0
        server.end(signal.SIGKILL)
    with serving(file, *words) as server:
        (found,) = json.loads(fm(server, "grants", "--json")[1])
        assert (found["number"], found["state"]) == (1, "granted")
        says = "512MiB for a: port 0 of rack has nothing left"
        status, err = fm(server, "grant", "512MiB", "a", "--kind", "ld")
        assert (status, says in err) == (1, True)
        assert fm(server, "revoke", 1)[0] == 0
        assert fm(server, "grant", "512MiB", "a")[0] == 0


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        (["grant", "0", "b"], 1, "0 bytes for b; more than 0 are allowed"),
        (["grant", "1MiB", "nobody"], 1, "'nobody' is no host of a virtual switch; there are a, b"),
        (["grant", "much", "b"], 2, "'much' is not a size"),
        (["grant", "1MiB", "b", "--lease", "0"], 2, "0.0 is not in the range 0<x<=86400"),
        (["grant", "1MiB", "b", "--kind", "gold"], 2, "'gold' is not one of"),
        (["revoke", "7"], 1, "there is no grant 7; there are none"),
        (["renew", "0"], 2, "0 is not in the range x>=1"),
    ],
)
def test_what_cannot_be_asked_for(shared_server, fm, given, status, says):
    found, err = fm(shared_server, *given)
    assert (found, says in err) == (status, True), err


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grants")
    (folder / "rack.yaml").write_text(TOPOLOGY)
    with serving(str(folder / "rack.yaml"), "--socket", f"unix:{folder}/control") as server:
        yield server


def test_a_server_without_a_pool_grants_nothing(file, words, fm, tmp_path):
    text = TOPOLOGY.replace("pool: {memory: [mem0], arena: 32MiB}\n", "")
    (tmp_path / "rack.yaml").write_text(text)
    with serving(file, *words) as server:
        status, err = fm(server, "grants")
        assert (status, "grants no memory to hosts: that takes a `pool`" in err) == (1, True)


def test_grants_are_a_server_s(capsys):
    assert main(["fm", "--at", "tcp:127.0.0.1:1", "grants"]) == 2
    assert "grants are a server's: --at or SOFTCXL_FM says unix:PATH" in capsys.readouterr().err


def test_what_befalls_the_pool_is_in_the_journal(file, words, capsys, tmp_path):
    (tmp_path / "dies.yaml").write_text("device: mem0\nsteps: [{die: media}]\n")
    with serving(file, *words) as server:
        assert main(["inject", server.address, str(tmp_path / "dies.yaml")]) == 0
        (failed,) = seen(server, capsys, "pool-source-failed")
        assert (failed["subject"], failed["detail"]["reason"]) == ("mem0", "its media have failed")
