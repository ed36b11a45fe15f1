import json
import subprocess
import sys

import pytest

from softcxl.cli import main

WRONG = "devices:\n  mem0: {volatile: 100MiB}\n  mem1: {volatle: 256MiB}\n"


def test_a_good_file_is_a_tree(capsys):
    assert main(["check", "examples/two-devices.yaml"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "examples/two-devices.yaml",
        "└── host alpha: 1GiB of RAM, 1 CPU",
        "    ├── bridge hb0",
        "    │   ├── port 0: mem0: 256MiB volatile, serial 0xc0ffee01",
        "    │   └── port 1: mem1: 256MiB volatile, serial 0xc0ffee02",
        "    └── window 0: 1GiB over hb0, volatile and persistent",
    ]
    assert err == ""


def test_a_good_file_as_json(capsys):
    assert main(["check", "--json", "examples/two-devices.yaml"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is True
    assert answer["topology"]["devices"]["mem1"]["serial"] == 0xC0FFEE02
    assert answer["topology"]["hosts"]["alpha"]["windows"][0]["size"] == 1 << 30


def test_every_problem_is_a_line_on_stderr(tmp_path, capsys):
    file = tmp_path / "t.yaml"
    file.write_text(WRONG)
    assert main(["check", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"{file}:2:20: devices.mem0.volatile: 100MiB is not a multiple of 256MiB",
        f"{file}:3:10: devices.mem1: unknown key 'volatle'; did you mean 'volatile'?",
        "softcxl: 2 problems",
    ]


def test_problems_as_json(tmp_path, capsys):
    file = tmp_path / "t.yaml"
    file.write_text(WRONG)
    assert main(["check", "--json", str(file)]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "valid": False,
        "problems": [
            {
                "file": str(file),
                "line": 2,
                "column": 20,
                "path": "devices.mem0.volatile",
                "message": "100MiB is not a multiple of 256MiB",
            },
            {
                "file": str(file),
                "line": 3,
                "column": 10,
                "path": "devices.mem1",
                "message": "unknown key 'volatle'; did you mean 'volatile'?",
            },
        ],
    }


def test_many_problems_are_counted(tmp_path, capsys):
    file = tmp_path / "t.yaml"
    file.write_text("devices:\n" + "".join(f"  m{i}: {{volatile: 1}}\n" for i in range(80)))
    assert main(["check", str(file)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 51
    assert err[-1] == "softcxl: 80 problems, the first 50 of them shown"


def test_an_absent_file(capsys):
    assert main(["check", "absent.yaml"]) == 2
    assert capsys.readouterr().err.splitlines()[0] == "absent.yaml: cannot be read: No such file or directory"


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_as_a_program_in_any_locale(locale):
    command = [sys.executable, "-c", "import sys; from softcxl.cli import main; sys.exit(main())"]
    environment = {"LC_ALL": locale, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*command, "check", "examples/two-devices.yaml"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0
    assert b"port 1: mem1: 256MiB volatile" in done.stdout
    assert done.stderr == b""


NESTED = """
devices: {mem0: {volatile: 256MiB}}
switches: {outer: {ports: [inner]}, inner: {ports: [mem0]}}
hosts: {alpha: {bridges: {hb0: {ports: [outer]}}}}
"""


def test_what_qemu_cannot_do_is_noted(tmp_path, capsys):
    file = tmp_path / "t.yaml"
    file.write_text(NESTED)
    assert main(["check", str(file)]) == 0
    message = "the switch inner is below the switch outer; QEMU's switches take devices alone."
    assert capsys.readouterr().out.splitlines()[-1] == f"not bootable in QEMU: alpha: {message}"
    assert main(["check", "--json", str(file)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["qemu"] == [{"host": "alpha", "boots": False, "message": message}]


def test_vm_run_starts_nothing_that_qemu_cannot_do(tmp_path, capsys, monkeypatch):
    file = tmp_path / "t.yaml"
    file.write_text(NESTED)
    # neither is anything fetched: this folder has no parts of a guest
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    assert main(["vm", "run", str(file), "true"]) == 2
    assert "cannot be booted in QEMU: the switch inner is below" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_checking_loads_nothing_of_a_guest():
    program = (
        "import sys, softcxl.cli.check; print('numpy' in sys.modules, 'softcxl.lab.guest' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"False False\n"
