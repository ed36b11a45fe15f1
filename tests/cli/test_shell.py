"""`softcxl shell`: typed at, or fed with a program."""

import io
import subprocess
import sys

import pytest

from softcxl.cli import main

FILE = "examples/firmware-region.yaml"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """Have these lines typed at the prompt, and then Ctrl-D."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def type_(*lines):
        rest = iter(lines)

        def answer(prompt):
            try:
                return next(rest)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", answer)
        monkeypatch.setattr(sys, "stdin", Terminal())

    return type_


def test_names_and_values(typed, capsys):
    typed(
        "region = system.regions['region0']",
        "region.write(0, b'hello')",
        "region.read(0, 5), mem0.name, host.name",
    )
    assert main(["shell", FILE]) == 0
    out, err = capsys.readouterr()
    assert "(b'hello', 'mem0', 'alpha')" in out
    assert "host alpha of examples/firmware-region.yaml: mem0, mem1" in err
    assert "names: mem0, mem1, fabric, system, host, tree, explain" in err


def test_the_verbs(typed, capsys):
    typed("tree()", "explain(0x100000100)")
    assert main(["shell", FILE]) == 0
    out = capsys.readouterr().out
    assert "└── port1 (pci0000:00)" in out
    assert "HPA 0x100000100, offset 0x100 of region0, is DPA 0x0 of mem1" in out


def test_what_things_are_when_typed(typed, capsys):
    typed("fabric", "host", "system", "mem0")
    assert main(["shell", FILE]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "<fabric of 2 devices, hosts alpha>",
        "<host alpha: mem0, mem1>",
        "<system of 2 memory devices, 1 regions>",
        "<Type3 mem0: 0x10000000 bytes, serial 0xc0ffee01>",
    ]


def test_an_error_of_ours_is_one_line_and_the_prompt_goes_on(typed, capsys):
    typed("mem0.inject_poison(0)", "system.regions['region0'].read()", "1 / 0", "print('still here')")
    assert main(["shell", FILE]) == 0
    out, err = capsys.readouterr()
    assert (
        "\nPoisonError: HPA 0x100000000: poison, DPA 0x0 of mem0; offset 0x0 of region0, position 0, mem0"
        in err
    )
    assert err.count("Traceback") == 1  # of the division
    assert 'File "<console>", line 1, in <module>' in err
    assert "cli/shell.py" not in err
    assert "still here" in out


def test_a_program_on_stdin(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("for one in system.memdevs:\n    print(one)\n"))
    assert main(["shell", FILE]) == 0
    assert capsys.readouterr() == ("mem0\nmem1\n", "")


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("print(mem0.serial)", 0, ""),
        (
            "system.create_region(['mem9'])",
            1,
            "RegionError: mem9 is no memory device here; there are mem0, mem1",
        ),
        ("nothing", 1, "NameError: name 'nothing' is not defined"),
        ("1 +", 1, "SyntaxError"),
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit()", 0, ""),
        ("raise SystemExit('too bad')", 1, "too bad"),
    ],
)
def test_a_program_as_an_argument(capsys, program, status, said):
    assert main(["shell", FILE, "-c", program]) == status
    assert said in capsys.readouterr().err


def test_a_warning_reads_as_all_that_is_said():
    # Where nobody has set up logging; pytest has.
    program = "import logging; logging.getLogger('softcxl.host').warning('region0: %s', 'gone')"
    main_ = (
        f"import sys; from softcxl.cli import main; sys.exit(main(['shell', {FILE!r}, '-c', {program!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", main_], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"softcxl: region0: gone\n")


def test_a_device_whose_name_is_no_python_name(tmp_path, capsys):
    path = tmp_path / "dash.yaml"
    path.write_text(
        "devices: {far-mem: {volatile: 256MiB, serial: 7}}\nhosts: {a: {bridges: {b: {ports: [far-mem]}}}}"
    )
    assert main(["shell", str(path), "-c", "print(far_mem.serial)"]) == 0
    assert capsys.readouterr().out == "7\n"
