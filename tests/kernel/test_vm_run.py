"""`softcxl vm run` as a program: what goes in, what comes out, and what is left when it has ended, however it did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from softcxl.lab.parts import Parts
from tests.kernel.conftest import EXAMPLES
from tests.kernel.regions import wait_until

PROGRAM = [sys.executable, "-c", "import sys; from softcxl.cli import main; sys.exit(main())", "vm", "run"]
ONE = str(EXAMPLES / "one-device.yaml")
PATIENCE = 300.0


@pytest.fixture(autouse=True)
def sockets(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the program's sockets go. After each test no folder is left there, and no QEMU that knew it."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    yield folder
    assert list(folder.iterdir()) == []
    assert guests(folder) == []


def guests(folder: Path) -> list[int]:
    """Processes with a word of `folder` in their command line, such as a QEMU with its sockets."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and os.fsencode(folder) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # it has just ended
    return found


def vm_run(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words], input=given, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_a_command_with_everything(tmp_path: Path) -> None:
    """Its output and status are passed on; a share, overlays, arguments for kernel and QEMU reach the guest."""
    share, overlay = tmp_path / "my share", tmp_path / "overlay"
    share.mkdir()
    (share / "from-host").write_text("host\n")
    (overlay / "usr" / "bin").mkdir(parents=True)
    tool = overlay / "usr" / "bin" / "mine"
    tool.write_text("#!/bin/sh\necho mine $*\n")
    tool.chmod(0o755)
    log = tmp_path / "console"
    command = (
        "cat /share/from-host; mine 1 2; cat /proc/cmdline; echo guest > /share/from-guest;"
        " cat /sys/class/dmi/id/product_serial; echo to console > /dev/kmsg; echo aside >&2; exit 7"
    )
    ran = vm_run(
        *(ONE, "--share", str(share), "--overlay", str(overlay), "--console", str(log)),
        *(
            "--append",
            "mine.first=1 mine.second=2",
            "--append",
            "loglevel=7",
            "--qemu",
            "-smbios type=1,serial=S-4711",
        ),
        *("--", command),
    )
    assert ran.returncode == 7, ran.stderr
    host, mine, words, serial = ran.stdout.splitlines()
    assert (host, mine, serial) == ("host", "mine 1 2", "S-4711")
    assert words.split()[-3:] == ["mine.first=1", "mine.second=2", "loglevel=7"]
    assert ran.stderr.splitlines()[-1] == "aside"
    assert any(line.startswith("softcxl: booting Linux") for line in ran.stderr.splitlines())
    assert (share / "from-guest").read_text() == "guest\n"
    assert "to console" in log.read_text()


def test_the_result_as_json() -> None:
    ran = vm_run(
        str(EXAMPLES / "two-bridges.yaml"), "--json", "-q", "--", "sh", "-c", "cxl list -M; kill -9 $$", "x y"
    )
    assert ran.returncode == 128 + signal.SIGKILL
    assert ran.stderr == ""
    result = json.loads(ran.stdout)
    assert set(result) == {"status", "stdout", "stderr", "seconds", "boot_seconds", "kernel", "traffic"}
    assert result["status"] == 128 + signal.SIGKILL
    assert {one["serial"] for one in json.loads(result["stdout"])} == {0xC0FFEE01, 0xC0FFEE02}
    assert result["seconds"] > 0
    assert result["boot_seconds"] > 0
    assert set(result["traffic"]) == {"mem0", "mem1"}  # `spare` is plugged in nowhere
    for traffic in result["traffic"].values():
        assert set(traffic) == {"reads", "writes", "interrupts"}
        assert traffic["reads"] > 0
        assert traffic["writes"] > 0


def test_output_that_is_no_text_comes_as_base64() -> None:
    ran = vm_run(ONE, "--json", "-q", "--", r"printf '\377\000'")
    result = json.loads(ran.stdout)
    assert (result["stdout_base64"], result["stderr"]) == ("/wA=", "")
    assert "stdout" not in result


def test_a_shell_that_reads_its_commands_from_a_pipe() -> None:
    ran = vm_run(ONE, "-q", given="echo six times seven is $((6 * 7))\nexit 5\n")
    assert ran.returncode == 5
    assert "six times seven is 42" in ran.stdout


def sentence(ran: subprocess.CompletedProcess[str], status: int = 1) -> list[str]:
    """The lines of the complaint of a run that failed, the first without the program's name."""
    assert ran.returncode == status
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    lines = ran.stderr.splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith("softcxl: ")]
    return [lines[first].removeprefix("softcxl: "), *lines[first + 1 :]]


def test_a_command_that_takes_too_long_ends_with_the_console() -> None:
    command = 'echo "<1>this far" > /dev/kmsg; sleep 1000'
    said, end, *console = sentence(vm_run(ONE, "-q", "--timeout", "15", "--", command))
    assert said == f"{command!r} ran longer than 15 seconds and was killed."
    assert end == "The end of the guest's console:"
    assert any("this far" in line for line in console)
    assert all(line.startswith("  | ") for line in console)
    assert not any("invalid" in line for line in console)


def test_a_guest_that_does_not_come_up() -> None:
    said, *_ = sentence(vm_run(ONE, "-q", "--boot-timeout", "0.5", "--", "true"))
    assert said == "The guest did not come up within 0.5 seconds."


def test_a_panic() -> None:
    said, _, *console = sentence(vm_run(ONE, "-q", "--", "echo c > /proc/sysrq-trigger"))
    assert said == "The guest's kernel panicked: sysrq triggered crash."
    assert any("Kernel panic - not syncing" in line for line in console)
    assert any("Call Trace" in line for line in console)


def test_a_kernel_without_cxl() -> None:
    said, *_ = sentence(vm_run(ONE, "-q", "--append", "initcall_blacklist=cxl_core_init", "--", "true"))
    assert said.startswith("The guest cannot be used: this kernel has no CXL: it needs CONFIG_CXL_BUS")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["absent.yaml", "--", "true"], 2, "absent.yaml: cannot be read: No such file or directory"),
        ([ONE, "--host", "beta", "--", "true"], 2, "There is no host 'beta'; the topology has alpha."),
        ([ONE, "--share", "absent", "--", "true"], 2, "absent, does not exist."),
        ([ONE, "--overlay", "absent", "--", "true"], 3, "The overlay absent is not a folder."),
        ([ONE, "--kernel", "absent", "--", "true"], 3, "absent"),
        ([ONE, "--kernel", ONE, "--", "true"], 3, "one-device.yaml"),
        ([ONE, "--json"], 2, "--json needs a COMMAND"),
        ([ONE, "--timeout", "0", "--", "true"], 2, "--timeout"),
        ([ONE, "--qemu", "-no-such-option", "--", "true"], 1, "-no-such-option"),
    ],
    ids=lambda value: "-".join(value[1:3]).strip("-") if isinstance(value, list) else "",
)
def test_what_cannot_be_started(words: list[str], status: int, said: str) -> None:
    ran = vm_run(*words)
    assert ran.returncode == status, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def line_of(stream: IO[str], wanted: str) -> None:
    for line in stream:
        if wanted in line:
            return
    raise AssertionError(f"{wanted!r} was not said")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_while_a_command_runs(sockets: Path, number: int, status: int) -> None:
    with subprocess.Popen(
        [*PROGRAM, ONE, "-q", "--", "echo running; sleep 1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        line_of(program.stdout, "running")
        assert len(list(sockets.iterdir())) == 1
        assert guests(sockets)
        program.send_signal(number)
        _, err = program.communicate(timeout=PATIENCE)
    assert program.returncode == status
    assert "Traceback" not in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_guest_boots(sockets: Path, number: int, status: int) -> None:
    with subprocess.Popen(
        [*PROGRAM, ONE, "--", "true"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stderr is not None
        line_of(program.stderr, "booting Linux")
        wait_until(lambda: bool(guests(sockets)))
        program.send_signal(number)
        out, err = program.communicate(timeout=PATIENCE)
    assert program.returncode == status
    assert out == ""
    assert "Traceback" not in err
