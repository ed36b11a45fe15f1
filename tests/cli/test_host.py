"""The verbs of a host, in this process and at a server: what they print, and how they fail."""

import json
from uuid import UUID

import pytest

from softcxl.cli import main

TOPOLOGY = """
devices:
  mem0: {volatile: 256MiB, persistent: 256MiB, serial: 0x10}
  mem1: {volatile: 256MiB, persistent: 256MiB, serial: 0x11}
hosts:
  alpha: {bridges: {hb0: {ports: [mem0, mem1]}}, windows: [{size: 2GiB, targets: [hb0]}]}
  beta: {bridges: {hb0: {ports: [null]}}}
state: state
"""


@pytest.fixture
def file(given):
    return given(TOPOLOGY)


def test_list(file, capsys):
    assert main(["list", file]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [one["serial"] for one in answer] == [0x10, 0x11]
    assert main(["list", file, "-M", "-m", "mem1"]) == 0
    text = capsys.readouterr().out
    assert '"memdev":"mem1"' in text  # as json-c prints it, without a space
    assert '"mem0"' not in text
    assert main(["list", file, "-vvv"]) == 0
    (bus,) = json.loads(capsys.readouterr().out)
    assert bus["bus"] == "root0"
    assert main(["list", file, "--host", "beta", "-P"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["port"] == "port1"


def test_tree(file, capsys):
    assert main(["tree", file]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "host alpha",
        "├── decoder0.0: 0x100000000 to 0x17fffffff (2GiB) over pci0000:00, ram and pmem",
        "└── port1 (pci0000:00)",
        "    ├── 0000:00:00.0: mem0 (0000:01:00.0): 256MiB ram, 256MiB pmem, serial 0x10",
        "    └── 0000:00:01.0: mem1 (0000:02:00.0): 256MiB ram, 256MiB pmem, serial 0x11",
    ]


def test_a_persistent_region_from_command_to_command(file, capsys):
    arguments = ["region", "create", file, "-t", "pmem", "-s", "512M", "-g", "1024", "mem1,mem0"]
    assert main(arguments) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["size"], made["interleave_granularity"]) == (512 << 20, 1024)
    assert [one["memdev"] for one in made["mappings"]] == ["mem0", "mem1"]
    assert main(["list", file, "-R"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["resource"] == made["resource"]
    assert main(["tree", file]) == 0
    assert "(512MiB) pmem over mem1, mem0 at 1024" in capsys.readouterr().out
    assert main(["explain", file, "-r", made["region"], "0x400"]) == 0
    assert "HPA 0x100000400, offset 0x400 of region0, is DPA 0x10000000 of mem0" in capsys.readouterr().out
    assert main(["explain", file, "-m", "mem0", "0x10000000"]) == 0
    assert "HPA 0x100000400" in capsys.readouterr().out
    assert main(["region", "destroy", file, "all"]) == 0
    assert capsys.readouterr().out == "destroyed region0\n"
    assert main(["list", file, "-R"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (
            ["region", "create", "FILE", "mem0", "mem7"],
            1,
            "mem7 is no memory device here; there are mem0, mem1",
        ),
        (["region", "create", "FILE", "-s", "12x"], 2, "12x"),
        (["region", "create", "FILE", "-s", "100M", "mem0"], 1, "is not a multiple of 0x10000000"),
        (["region", "create", "FILE", "-U", "zzz"], 2, "zzz is no UUID"),
        (["region", "create", "FILE", "--host", "beta"], 1, "no CXL memory window"),
        (["region", "destroy", "FILE", "region9"], 1, "region9 is no region here"),
        (["explain", "FILE", "0"], 1, "is in no CXL window"),
        (["explain", "FILE", "x"], 2, "is not a whole number"),
        (["explain", "FILE", "-m", "mem0", "0"], 1, "is mapped nowhere"),
        (["explain", "FILE", "-r", "region1", "0"], 1, "region1 is no region here; there are none"),
        (["explain", "FILE", "-5"], 2, "'-5' is not a whole number"),
        (["explain", "FILE", "0x10000000000000000"], 2, "they end at 0xffffffffffffffff"),
        (["explain", "FILE", "-m", "mem7", "0"], 1, "mem7 is no memory device here; there are mem0, mem1"),
        (["explain", "FILE", "-m", "mem0", "-r", "region0", "0"], 2, "give -m or -r, not both"),
        (["list", "FILE", "--host", "gamma"], 2, "'gamma' is no host of"),
        (["list", "FILE", "--host", ""], 2, "'' is no host of"),
        (["list", "FILE", "-m", "mem0,mem7"], 1, "mem7 is no memory device here; there are mem0, mem1"),
        (["list", "FILE", "-r", "region0"], 1, "region0 is no region here; there are none"),
        (["list", "FILE", "-d", "decoder0.9"], 1, "decoder0.9 is no decoder here; there are decoder0.0, "),
        (["region", "create", "FILE", "-w", "5"], 1, "5 ways: allowed are 1, 2, 3, 4, 6, 8, 12, 16"),
        (["region", "create", "FILE", "-w", "-1"], 1, "-1 ways: allowed are 1, 2"),
        (["region", "create", "FILE", "-g", "-256"], 1, "granularity -256: allowed are 256"),
        (["region", "create", "FILE", "-s", "-256M"], 2, "'-256MiB' is not a size"),
        (["region", "create", "FILE", "-t", "pmem", "-U", str(UUID(int=0))], 1, "is the UUID of nothing"),
        (["region", "create", "FILE", "-t", "ram", "-U", str(UUID(int=1))], 1, "type ram has no UUID"),
        (["list", "/nowhere.yaml"], 2, "nowhere.yaml"),
    ],
)
def test_failures_are_sentences(file, capsys, arguments, status, reason):
    assert main([file if one == "FILE" else one for one in arguments]) == status
    out, err = capsys.readouterr()
    assert reason in err
    assert err.count("\n") == 1
    assert out == ""


def test_an_offset_beyond_the_region(capsys):
    assert main(["explain", "examples/firmware-region.yaml", "-r", "region0", "0x20000000"]) == 1
    said = "softcxl: offset 0x20000000 is not within the 0x20000000 bytes of region0\n"
    assert capsys.readouterr().err == said


def test_a_uuid_for_what_turns_out_to_be_volatile(capsys):
    # cxl(1) refuses it, too, whether or not -t was given (ndctl, cxl/region.c)
    assert main(["region", "create", "examples/two-devices.yaml", "-U", str(UUID(int=1))]) == 1
    assert "a region of type ram has no UUID" in capsys.readouterr().err


def test_json_of_explain_destroy_and_tree(file, capsys):
    assert main(["region", "create", file, "-t", "pmem", "mem0", "mem1", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["explain", file, "--json", hex(made["resource"] + 0x345)]) == 0
    answer = json.loads(capsys.readouterr().out)
    # 256 bytes to each in turn: 0x345 is the second turn of the second device
    steps = answer.pop("steps")
    assert answer == {
        "hpa": made["resource"] + 0x345,
        "region": "region0",
        "offset": 0x345,
        "memdev": "mem1",
        "serial": 0x11,
        "dpa": (256 << 20) + 0x145,
    }
    assert [step["to"] for step in steps] == ["pci0000:00", "0000:00:01.0", "DPA 0x10000145"]
    assert main(["tree", file, "--json"]) == 0
    tree = capsys.readouterr().out
    assert main(["list", file, "-vvv", "--json"]) == 0
    assert capsys.readouterr().out == tree
    assert main(["region", "destroy", file, "all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"region": "region0"}]
    assert main(["region", "destroy", file, "all"]) == 0
    assert capsys.readouterr().err == "softcxl: there are no regions\n"


def test_a_state_folder_that_cannot_be(tmp_path, capsys):
    path = tmp_path / "fabric.yaml"
    path.write_text(TOPOLOGY.replace("state: state", "state: fabric.yaml/state"))
    assert main(["list", str(path)]) == 1
    assert capsys.readouterr().err == f"softcxl: state: {path}/state: cannot be written: Not a directory\n"


def test_a_file_without_a_host(given, capsys):
    assert main(["tree", given("devices: {mem0: {volatile: 256MiB}}")]) == 2
    assert "no host is in it" in capsys.readouterr().err
