"""From exceptions to sentences and exit status."""

import subprocess
import sys

import click
import pytest

import softcxl
import softcxl.cli
from softcxl.cli import COMMANDS, INTERNAL_ERROR, INTERRUPTED, SUMMARIES, cli, main
from softcxl.fabric.errors import BuildError, SoftCXLError
from softcxl.wire import WireError


class MissingPart(SoftCXLError):
    exit_code = 3


@pytest.fixture
def failing(monkeypatch):
    """`softcxl check` fails with the exception that the test chooses."""

    def fail_with(error):
        @click.command()
        def broken():
            raise error

        monkeypatch.setattr(cli, "get_command", lambda ctx, name: broken)

    return fail_with


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BuildError("socket /x/mem0.sock is in use"), 1, "softcxl: socket /x/mem0.sock is in use\n"),
        (MissingPart("there is no QEMU"), 3, "softcxl: there is no QEMU\n"),
        (WireError("3 bytes are too few"), 1, "softcxl: 3 bytes are too few\n"),
        (OSError(28, "No space left on device", "/x/img"), 1, "softcxl: /x/img: No space left on device\n"),
        (OSError("odd"), 1, "softcxl: odd\n"),
        (KeyboardInterrupt(), INTERRUPTED, "softcxl: interrupted\n"),
        (
            click.UsageError("give a topology"),
            2,
            "softcxl: give a topology (softcxl check --help says what is right)\n",
        ),
        (click.ClickException("no such thing"), 1, "softcxl: no such thing\n"),
        (
            ZeroDivisionError("by zero"),
            INTERNAL_ERROR,
            "softcxl: internal error: ZeroDivisionError: by zero; --debug shows where\n",
        ),
    ],
)
def test_an_error_is_a_sentence_and_a_status(failing, capsys, error, status, said):
    failing(error)
    assert main(["check"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(said)
    assert "Traceback" not in err


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_traceback_when_asked_for(failing, capsys, monkeypatch, way):
    failing(BuildError("disk full"))
    if way == "environment":
        monkeypatch.setenv("SOFTCXL_DEBUG", "1")
    assert main(["--debug", "check"] if way == "option" else ["check"]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("softcxl: disk full\n")


def test_a_commands_own_status_passes(monkeypatch):
    @click.command()
    @click.pass_context
    def seven(ctx):
        ctx.exit(7)

    monkeypatch.setattr(cli, "get_command", lambda ctx, name: seven)
    assert main(["check"]) == 7


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"softcxl {softcxl.__version__}\n"


@pytest.mark.parametrize("arguments", [["chek"], ["check"], ["check", "--nope", "x"], ["check", "a", "b"]])
def test_bad_usage_is_one_line(arguments, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("softcxl: ")
    assert err.endswith("--help says what is right)\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["vm"], ["region"], ["lab"]])
def test_a_group_without_a_command_shows_its_help(arguments, capsys):
    assert main(arguments) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_has_help(name, capsys):
    assert main([name, "--help"]) == 0
    assert f"Usage: softcxl {name}" in capsys.readouterr().out


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name}" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_of_a_command_what_its_own_help_begins_with(name):
    assert list(SUMMARIES) == list(COMMANDS)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert " ".join((command.help or "").split("\n\n")[0].split()) == SUMMARIES[name]


def test_help_imports_nothing_that_takes_time():
    program = (
        "import sys; import softcxl; from softcxl.cli import main; main(['--help']);"
        " print(sorted({'numpy', 'yaml', 'msgspec', 'rich', 'asyncio', 'softcxl.wire'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n[]\n")


def test_output_that_nobody_reads():
    program = (
        "import sys; from softcxl.cli import main; sys.exit(main(['check', 'examples/two-devices.yaml']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert err == b""


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "examples/showcase.yaml"],
        ["list", "-vvv", "examples/firmware-region.yaml"],
        ["--help"],
    ],
)
def test_output_that_is_closed_or_has_no_room(arguments):
    program = f"import sys; from softcxl.cli import main; sys.exit(main({arguments}))"
    closed = 'exec "$0" -c "$1" >&-'
    done = subprocess.run(["sh", "-c", closed, sys.executable, program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"softcxl: No space left on device\n")


def test_starting_loads_nothing_heavy():
    heavy = ("numpy", "msgspec", "yaml", "rich")
    program = f"import sys, softcxl.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_ctrl_c_while_a_class_is_made_is_ctrl_c(failing, capsys):
    """Python 3.11 tells of it as a RuntimeError that something else is the cause of."""
    error = RuntimeError("Error calling __set_name__ on 'Placed' instance 'capability' in 'Cpmu'")
    error.__cause__ = KeyboardInterrupt()
    failing(error)
    assert main(["check"]) == INTERRUPTED
    assert capsys.readouterr().err == "softcxl: interrupted\n"


def test_a_verb_of_the_pool_loads_nothing_of_devices():
    """Each is a program of its own: with all of the fabric it took five times as long to start."""
    code = (
        "import sys; from softcxl.cli import main; main(['pool', '--pool', 'unix:/nowhere', 'list']); "
        "print([name for name in sys.modules if name.startswith(('softcxl.device', 'softcxl.host', 'softcxl.fm'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
