"""Verbs about a switch, at a switch of ours over a socket."""

import json
import signal
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from softcxl.cli import main
from softcxl.spec.fm.vcs import BindingStatus
from softcxl.transport.mctp import Endpoint, MctpTcpDoor
from tests.fm.scripted import Scripts


def test_what_it_is(rack, ask, run):
    found = ask("identify")
    assert (found["component_type"], found["serial"], found["vendor"]) == ("switch", "0x77", "0x1e98")
    assert found["switch"] == {
        "ingress_port": 0,
        "ports": 5,
        "active_ports": [0, 1, 2, 3, 4],
        "virtual_switches": 2,
        "active_virtual_switches": [0, 1],
        "vppbs": 4,
        "bound_vppbs": 0,
        "hdm_decoders": 8,
    }
    assert "active ports             0-4\n" in run("identify")


def test_ports(rack, ask, run):
    found = ask("ports")
    assert [one["device"] for one in found] == ["type_3_mld", "type_3_sld", "none", "none", "none"]
    assert [one["state"] for one in found] == ["dsp", "dsp", "dsp", "usp", "usp"]
    assert found[0]["link"]["speed"] == 32.0
    assert found[0]["link"]["supported_speeds"] == [2.5, 5.0, 8.0, 16.0, 32.0]
    lines = run("ports", 1, 77).splitlines()
    assert lines[0].split() == ["port", "state", "device", "mode", "LDs", "link", "up", "to", "signals"]
    assert lines[1].startswith("1     DSP              type 3 SLD  vh 68b")
    assert lines[2].startswith("77    invalid port ID  none")


def test_binding_shows_in_the_switch_and_in_the_tables(rack, switch, ask, run):
    assert run("bind", 0, 1, 1) == "vPPB 1 of VCS 0 is bound to port 1\n"
    assert ask("bind", 1, 0, 0, "--ld", 1) == {"vcs": 1, "vppb": 0, "port": 0, "ld": 1, "done": True}
    assert switch.virtual[0].vppbs[1].status is BindingStatus.BOUND_PORT
    assert switch.virtual[1].vppbs[0].ld == 1
    left, right = ask("switches")
    assert left == {
        "vcs": 0,
        "state": "enabled",
        "usp": 3,
        "vppbs": [
            {"vppb": 0, "status": "unbound", "port": None, "ld": None},
            {"vppb": 1, "status": "bound_port", "port": 1, "ld": None},
        ],
    }
    assert right["vppbs"][0] == {"vppb": 0, "status": "bound_ld", "port": 0, "ld": 1}
    assert run("switches").splitlines() == [
        "VCS 0: enabled, upstream port 3",
        "vPPB  binding     port  LD",
        "0     unbound     -     -",
        "1     bound port  1     -",
        "VCS 1: enabled, upstream port 4",
        "vPPB  binding   port  LD",
        "0     bound LD  0     1",
        "1     unbound   -     -",
    ]
    assert run("switches", 9) == "VCS 9: invalid VCS ID\n"


def test_the_whole_switch_as_a_tree(rack, ask, run):
    run("bind", 0, 1, 1)
    run("bind", 1, 0, 0, "--ld", 1)
    assert run("tree").splitlines() == [
        rack,
        "├── VCS 0: enabled, upstream port 3",
        "│   ├── vPPB 0: unbound",
        "│   └── vPPB 1: port 1",
        "├── VCS 1: enabled, upstream port 4",
        "│   ├── vPPB 0: LD 1 of port 0",
        "│   └── vPPB 1: unbound",
        "├── port 0: type 3 MLD, x8 32 GT/s, L0",
        "│   ├── LD 0: 1GiB",
        "│   ├── LD 1: 1GiB, vPPB 0 of VCS 1",
        "│   ├── LD 2: no memory",
        "│   └── LD 3: no memory",
        "├── port 1: type 3 SLD, x8 32 GT/s, L0, vPPB 1 of VCS 0",
        "├── port 2: empty",
        "├── port 3: upstream",
        "└── port 4: upstream",
    ]
    found = ask("tree")
    assert found["virtual_switches"] == ask("switches")
    assert found["ports"][0]["lds"][1] == {"ld": 1, "range1": 1 << 30, "range2": 0}


def test_a_switch_of_cxl_2_and_its_idea_of_no_logical_device(scripts, ask, run):
    """As CSE, which says LD 0 of a vPPB that is bound to a port."""
    scripts.handlers[0x0001] = struct.pack("<HHHHQB", 0xA1A2, 0xB1B2, 0xC1C2, 0xD1D2, 5, 13)
    scripts.handlers[0x5200] = bytes.fromhex("01000000" + "00010002" + "02000000" + "03010000")
    assert ask("identify")["component_type"] is None
    (found,) = ask("switches", 0)
    assert [(one["status"], one["port"], one["ld"]) for one in found["vppbs"]] == [
        ("bound_port", 0, None),
        ("bound_ld", 1, 0),
    ]


@pytest.mark.parametrize("option", ["wait", "managed", "surprise"])
def test_unbinding(rack, switch, run, option):
    run("bind", 0, 0, 1)
    if option == "wait":
        switch.ports[1].assert_perst()
    assert run("unbind", 0, 0, "--option", option) == "vPPB 0 of VCS 0 is unbound\n"
    assert switch.virtual[0].vppbs[0].status is BindingStatus.UNBOUND


def test_what_is_not_waited_for_is_told_of_by_background(scripts, ask, run):
    scripts.handlers |= {0x5201: 0x0001, 0x5202: 0x0001, 0x0002: bytes.fromhex("4b00 0152 0000 0000")}
    assert run("bind", 0, 1, 2, "--no-wait") == "vPPB 1 of VCS 0 is being bound to port 2\n"
    assert ask("unbind", 0, 1, "--no-wait")["done"] is False
    assert ask("background") == {
        "opcode": "5201h",
        "name": "Bind vPPB",
        "in_progress": True,
        "percentage_complete": 37,
        "return_code": None,
        "vendor_status": 0,
    }
    scripts.handlers[0x0002] = bytes.fromhex("c800 0152 0500 0000")
    assert "return code          retry required\n" in run("background")


def test_a_refusal_is_status_1_and_says_what_was_asked(rack, fail):
    status, says = fail("bind", 0, 7, 0, "--ld", 1)
    assert (status, says) == (
        1,
        f"{rack}: Bind vPPB (5201h) of vcs 0, vppb 7, port 0, ld 1: Invalid Input (0002h)",
    )


def test_two_that_want_the_same(rack, run, fail):
    run("bind", 0, 0, 0, "--ld", 0)
    assert fail("bind", 1, 0, 0, "--ld", 0)[0] == 1
    assert fail("bind", 0, 0, 0, "--ld", 1)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bind", 0, 300, 1], "Invalid value for 'VPPB': 300; 0 to 255 are allowed"),
        (
            ["bind", 0, "x", 1],
            "Invalid value for 'VPPB': 'x' is not a whole number; write it in decimal or as 0x…",
        ),
        (["bind", 0, 1], "Missing argument 'PORT'"),
        (
            ["unbind", 0, 1, "--option", "rough"],
            "Invalid value for '--option': 'rough' is not one of 'wait', 'managed', 'surprise'",
        ),
        (["--eid", 255, "ports"], "Invalid value for '--eid': 255; 0 to 254 are allowed"),
        (
            ["--dialect", "old", "ports"],
            "Invalid value for '--dialect': 'old' is not one of 'standard', 'cxl2'",
        ),
        (["aer", 0, 0, 32], "Invalid value for 'BIT': 32; 0 to 31 are allowed"),
        (
            ["aer", 0, 0, 1, "--header", "00" * 33],
            "Invalid value for '--header': 33 bytes; 32 at most are allowed",
        ),
        (
            ["aer", 0, 0, 1, "--header", "xyz"],
            "Invalid value for '--header': 'xyz' is not bytes in hexadecimal, two digits each",
        ),
        (
            ["domain", "set", "secret"],
            "Invalid value for 'UUID': 'secret' is no uuid; write 32 hexadecimal digits, as of a UUID",
        ),
    ],
)
def test_bad_usage(rack, fail, arguments, says):
    status, said = fail(*arguments)
    assert status == 2
    assert said.startswith(f"{says} (softcxl fm")


def test_no_address(fail, monkeypatch):
    monkeypatch.delenv("SOFTCXL_FM", raising=False)
    status, says = fail("ports")
    assert status == 2
    assert says.startswith(
        "where is the endpoint? --at or SOFTCXL_FM says: tcp:HOST:PORT, or unix:PATH of a server"
    )


def test_an_address_that_is_none(fail):
    status, says = fail("--at", "localhost:2508", "ports")
    assert status == 2
    assert says.startswith(
        "'localhost:2508' is no address of an endpoint; tcp:HOST:PORT (tcp:HOST has port 2508) and "
    )


def test_nobody_there(fail, tmp_path):
    status, says = fail("--at", f"unix:{tmp_path}/none", "ports")
    assert (status, says) == (3, f"unix:{tmp_path}/none: no server listens there: No such file or directory")


def test_the_wrong_dialect_is_status_3_and_a_hint(rack, fail):
    status, says = fail("--dialect", "cxl2", "ports")
    assert status == 3
    assert "as in the dialect 'standard'" in says


def test_perst_and_reset(rack, switch, run, ask):
    assert run("port", "perst", 2) == ""
    assert ask("ports", 2)[0]["link"]["perst"] is True
    assert run("port", "perst", 2, "--deassert") == ""
    assert ask("ports", 2)[0]["link"]["perst"] is False
    assert run("port", "reset", 2) == ""


def test_port_control_of_what_is_bound_is_refused(rack, run, fail):
    run("bind", 0, 0, 1)
    status, says = fail("port", "reset", 1)
    assert status == 1
    assert says.endswith(
        "Physical Port Control (5102h) of port 1, operation reset_ppb: Invalid Input (0002h)"
    )


def test_configuration_space(rack, switch, run, ask):
    # a PCI-to-PCI bridge: class 06 04 00, header type 1
    data = bytes.fromhex(ask("config", "read", 0, 0, 16)["data"])
    assert data[9:12] == bytes([0x00, 0x04, 0x06])
    assert data[14] & 0x7F == 1
    assert run("config", "read", 0, "0x8", 8).startswith("00000008: ")
    run("config", "write", 0, "0x3c", "2a")  # Interrupt Line, which is the software's
    assert bytes.fromhex(ask("config", "read", 0, "0x3c", 1)["data"]) == b"\x2a"


@pytest.mark.parametrize(
    "arguments", [("read", 0, 4095, 2), ("write", 0, 4092, "0011223344"), ("write", 0, 0, "")]
)
def test_beyond_configuration_space(rack, fail, arguments):
    status, says = fail("config", *arguments)
    assert status == 2
    assert "configuration space has 4096 bytes" in says


def test_domain_validation(scripts, run, ask):
    secret = "00112233-4455-6677-8899-aabbccddeeff"
    scripts.handlers |= {0x5104: b"\0", 0x5105: b"", 0x5106: b"\1", 0x5107: bytes(range(16))}
    assert ask("domain", "show") == {"vcs": None, "set": False}
    assert run("domain", "set", secret) == ""
    assert scripts.asked[-1] == (0x5105, secret.replace("-", ""))
    assert ask("domain", "show", 3)["secret_value"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"


def test_an_aer_event(scripts, run):
    scripts.handlers[0x5203] = b""
    run("aer", 1, 2, 20, "--uncorrectable", "--header", "0a 0b")
    assert scripts.asked[-1] == (0x5203, "0102000014000080" + "0a0b" + "00" * 30)


# -- events --------------------------------------------------------------------------------------------------


def test_events(rack, run):
    run("events")
    run("bind", 0, 1, 0, "--ld", 1)
    (kept,) = run("events", "--keep", "--json").splitlines()
    (taken,) = run("events", "--log", "informational", "--json").splitlines()
    assert json.loads(kept) == json.loads(taken)
    found = json.loads(taken)
    assert (found["event"], found["type"], found["status"]) == (
        "virtual_switch_event",
        "binding_change",
        "bound_ld",
    )
    assert (found["vcs"], found["vppb"], found["port"], found["ld"]) == (0, 1, 0, 1)
    assert run("events") == ""
    run("unbind", 0, 1, "--option", "surprise")
    assert run("events").endswith(" informational: vPPB 1 of VCS 0: binding change: unbound\n")


def test_events_of_ports(rack, run):
    lines = run("events").splitlines()
    assert lines[-1].endswith(" informational: port 1: link state change: type 3 SLD, x8 32 GT/s, L0")


def test_events_that_were_lost(scripts, capsys):
    scripts.handlers[0x0100] = bytes.fromhex("0100 0500") + bytes(28)
    assert main(["fm", "events", "--log", "fatal"]) == 0
    assert capsys.readouterr().err == "softcxl: 5 records of the fatal log were lost: it was full\n"


def test_following_does_not_keep(rack, fail):
    status, says = fail("events", "--follow", "--keep")
    assert status == 2
    assert says.startswith("--follow clears what it has printed; it does not go with --keep")


def test_following_events_until_interrupted(rack, run):
    run("events")
    # a shell that has started the tests in the background has it ignored
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{heard}; import sys; from softcxl.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["fm", "events", "--follow", "--log", "informational", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        for vppb in (0, 1):
            run("bind", 0, vppb, 0, "--ld", vppb)
            found = json.loads(follower.stdout.readline())
            assert (found["vppb"], found["ld"]) == (vppb, vppb)
        follower.send_signal(signal.SIGINT)
        out, err = follower.communicate()
    assert (follower.returncode, out, err.strip()) == (130, "", "softcxl: interrupted")


def test_following_events_until_the_endpoint_goes(capsys):
    follows = threading.Event()

    def records(payload):
        if payload == b"\3":  # the fatal log is the last to be read
            follows.set()
        return 0, bytes(32)

    scripts = Scripts({0x0100: records, 0x0104: bytes(2), 0x0105: lambda payload: (0, payload)})
    with ThreadPoolExecutor(1) as other, MctpTcpDoor({8: Endpoint("rack", scripts.open)}, port=0) as door:
        address = f"tcp:127.0.0.1:{door.address[1]}"
        following = other.submit(main, ["fm", "--at", address, "events", "--follow"])
        assert follows.wait(300)
        door.close()
        assert following.result() == 3
    assert capsys.readouterr().err == f"softcxl: {address}: the connection has ended\n"
