"""Verbs of the command interface itself, and of MCTP."""

import json
import re
import struct
import time

import pytest

from softcxl.cli import main
from softcxl.cli.fm import fm
from softcxl.cli.fm.control import version
from softcxl.cli.fm.group import SECTIONS
from softcxl.fm import Connection
from softcxl.spec.mctp.control import EndpointIdStatus, MctpVersion, SetEndpointIdResponse
from tests.fm.scripted import connecting_takes_its_time, tunnelled


def test_help_shows_every_verb_once():
    shown = [name for names in SECTIONS.values() for name in names]
    assert sorted(shown) == sorted(fm.commands)


def test_help_has_sections(capsys):
    assert main(["fm", "--help"]) == 0
    out = capsys.readouterr().out
    places = [out.index(f"\n{title}:\n") for title in SECTIONS]
    assert places == sorted(places)
    assert "\n  bind " in out


def test_commands(rack, ask, run):
    found = {one["opcode"]: one for one in ask("commands")}
    assert found["5201h"]["name"] == "Bind vPPB"
    assert "background_operation" in found["5201h"]["effects"]
    assert "\n5100h   Identify Switch Device " in run("commands")


def test_the_clock_that_events_are_stamped_with(rack, ask, run):
    assert run("clock") == "(no time)\n"
    before = time.time_ns()
    assert before <= ask("clock", "--set")["timestamp"] <= time.time_ns()
    run("events")
    run("bind", 0, 0, 0, "--ld", 0)
    (line,) = run("events").splitlines()
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ informational: vPPB 0 of VCS 0: ", line)
    assert ask("clock", "--port", 0) == {"timestamp": 0}


def test_message_limits(rack, ask, run, fail):
    assert ask("limit") == {"response_message_limit": 8192}
    assert run("limit", 8192) == "response message limit  8192\n"
    assert fail("limit", 300)[0] == 2
    assert fail("limit", 128)[1].startswith("Invalid value for '[SIZE]': 128; 256 to 1048576 are allowed")


def test_aborting(scripts, run, fail):
    scripts.handlers[0x0005] = b""
    assert run("abort") == ""
    scripts.handlers[0x0005] = 0x20
    assert fail("abort")[1].endswith(
        "Request Abort Background Operation (0005h): Abort Not Supported (0020h)"
    )


@pytest.mark.parametrize(
    "opcode", ["0003h", "0x0003", "3", "get-response-message-limit", "Get Response Message Limit"]
)
def test_any_command(scripts, ask, run, opcode):
    scripts.handlers[0x0003] = b"\x0c"
    found = ask("raw", opcode)
    assert found == {
        "opcode": "0003h",
        "name": "Get Response Message Limit",
        "return_code": 0,
        "return_code_name": "success",
        "vendor_status": 0,
        "output": "0c",
        "decoded": {"limit": 12},
    }
    assert run("raw", opcode) == "00000000: 0c\nlimit  12\n"


def test_any_command_with_input(scripts, run):
    scripts.handlers[0xC001] = lambda payload: (0, payload[::-1])
    assert run("raw", "c001", "01 02 03") == "00000000: 03 02 01\n"


def test_nested_output_has_dotted_names(scripts, run):
    port = bytes([7, 3, 3, 0, 4, 0x0F, 16, 16, 0x1F, 5, 5, 4, 0, 4, 0, 0])
    scripts.handlers[0x5101] = struct.pack("<B3x", 1) + port
    out = run("raw", "5101", "0107")
    assert "\nports[0].configuration.state" in out
    assert "DSP\n" in out


def test_a_refusal_of_any_command(scripts, fail, capsys):
    status, says = fail("raw", "c0de")
    assert status == 1
    assert says.endswith(": command (C0DEh): Unsupported (0003h)")
    assert main(["fm", "raw", "c0de", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["return_code_name"] == "unsupported"


def test_a_command_that_goes_on_in_the_background(scripts, run):
    scripts.handlers[0x4400] = 0x0001
    assert run("raw", "sanitize") == "Background Started (0001h)\n"


def test_a_tunnelled_command(scripts, run, fail):
    scripts.handlers[0x5300] = tunnelled({0x0003: b"\x09", 0x5300: tunnelled({0x0003: b"\x0a"})})
    assert run("tunnel", 3, "0003h").endswith("limit  9\n")
    assert run("tunnel", 3, "0003h", "--ld", 1).endswith("limit  10\n")
    status, says = fail("tunnel", 3, "5100")
    assert status == 1
    assert says.startswith("port 3 of tcp:")
    assert says.endswith("Identify Switch Device (5100h): Unsupported (0003h)")


def test_what_is_no_command(scripts, fail):
    status, says = fail("raw", "make-coffee")
    assert status == 2
    assert "'make-coffee' is neither an opcode like 5100h nor a command like identify-switch-device" in says


def test_endpoints(rack, ask, run):
    (found,) = ask("control", "endpoints")
    assert (found["eid"], found["endpoint_type"]) == (8, "simple")
    assert [one["name"] for one in found["message_types"]] == ["cxl_fm_api", "cxl_cci"]
    assert found["message_types"][0]["versions"] == ["1.0.0"]
    assert found["mctp_versions"][-1] == "1.3.1"
    assert found["name"] is None
    assert "\n8         -     simple  " in run("control", "endpoints")


def test_an_endpoint_gets_another_id(rack, ask, run, fail, monkeypatch):
    assert run("control", "set-eid", 20) == "the endpoint has ID 20\n"
    assert ask("control", "endpoints")[0]["eid"] == 20
    assert run("--eid", 20, "limit")
    assert fail("control", "set-eid", 7)[0] == 2
    connecting_takes_its_time(monkeypatch)
    status, says = fail("--eid", 8, "--timeout", 0.1, "limit")
    assert status == 3
    assert "no answer from endpoint 8" in says


def test_endpoints_by_name_are_a_servers(rack, fail):
    status, says = fail("--eid", "rack", "identify")
    assert status == 2
    assert says.startswith(
        f"there is no endpoint 'rack' at {rack}; there are none: only a server of ours, unix:PATH, has"
    )


def test_an_endpoint_that_keeps_its_id(monkeypatch, rack, capsys):
    async def refuse(self, new, eid=0):
        return SetEndpointIdResponse(eid=20, status=EndpointIdStatus(0x10))

    monkeypatch.setattr(Connection, "set_endpoint_id", refuse)
    assert main(["fm", "control", "set-eid", "21"]) == 1
    assert capsys.readouterr().out == "the endpoint keeps its ID, 20\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [("f1f3f100", "1.3.1"), ("f1f0ff00", "1.0"), ("f1f0f061", "1.0.0a"), ("11f0ff00", "11.0")],
)
def test_versions(data, text):
    # DSP0236 1.3 §12.6.1: BCD, Fh in the upper digit where there is one digit, FFh for no update
    assert version(MctpVersion.unpack(bytes.fromhex(data))) == text
