"""Ctrl-C from the first moment on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import softcxl

HOLDS = "import sys; print(flush=True); sys.stdin.readline(); raise SystemExit(7)"
"""In the place of a module that is imported: it says that it is, and waits."""


@contextmanager
def started(folder: Path, held: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program, as it imports that module for the first time."""
    (folder / f"{held}.py").write_text(HOLDS)
    path = os.pathsep.join((str(folder), str(Path(softcxl.__file__).parent.parent)))
    with subprocess.Popen(
        [sys.executable, "-m", "softcxl", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    ) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == b"\n"
        yield one
        one.kill()


@pytest.mark.parametrize(
    ("held", "arguments"), [("click", ()), ("rich", ("check", "examples/two-devices.yaml"))]
)
def test_ctrl_c_while_it_starts_is_a_sentence_and_130(
    tmp_path: Path, held: str, arguments: tuple[str, ...]
) -> None:
    with started(tmp_path, held, *arguments) as one:
        one.send_signal(signal.SIGINT)
        _, said = one.communicate()
        assert (one.returncode, said.lstrip()) == (130, b"softcxl: interrupted\n")


def test_who_was_started_to_ignore_it_starts(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it has in the background
    try:
        with started(tmp_path, "click") as one:
            one.send_signal(signal.SIGINT)
            assert one.communicate(b"\n")[1] == b""
            assert one.returncode == 7
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_its_commands_own_once_one_runs() -> None:
    """`serve` ends in order by it: so the handler is what it was before."""
    program = (
        "import signal, softcxl.cli, softcxl.__main__ as program\n"
        "softcxl.cli.main = lambda: print(signal.getsignal(signal.SIGINT) is signal.default_int_handler) or 5\n"
        "raise SystemExit(program.main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, b"True\n", b"")


def test_what_comes_through_is_ctrl_c_nevertheless() -> None:
    program = (
        "import softcxl.cli, softcxl.__main__ as program\n"
        "def interrupted(): raise KeyboardInterrupt\n"
        "softcxl.cli.main = interrupted\n"
        "program.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"softcxl: interrupted\n")


def test_the_program_is_this_one() -> None:
    assert 'softcxl = "softcxl.__main__:main"' in Path("pyproject.toml").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "softcxl", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"softcxl {softcxl.__version__}\n"


def test_the_package_itself_imports_nothing() -> None:
    """Ctrl-C in there is a traceback yet, and programs of the pool wait for it."""
    program = (
        "import sys; before = set(sys.modules); import softcxl; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(softcxl.__file__).parent.parent)},
    )
    assert (done.stdout, done.stderr) == ("['__future__', 'softcxl']\n", "")
