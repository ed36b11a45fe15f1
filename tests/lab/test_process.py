"""Children that end with us, however we end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from softcxl.lab.errors import LaunchError
from softcxl.lab.process import Child

# starts a child from a thread that ends at once, tells its pid, and waits to be killed
PARENT = """
import sys, tempfile, threading
from softcxl.lab.process import Child
def start():
    child = Child(["sleep", "1000"], output=tempfile.TemporaryFile(), ended=lambda: None)
    print(child.pid, flush=True)
thread = threading.Thread(target=start)
thread.start()
thread.join()
sys.stdin.read()
"""


def test_output_status_and_end() -> None:
    ended = threading.Event()
    with tempfile.TemporaryFile() as output:
        child = Child(["sh", "-c", "echo said; exit 3"], output=output, ended=ended.set)
        assert child.wait(60.0)
        assert child.status == 3
        assert ended.is_set()
        output.seek(0)
        assert output.read() == b"said\n"


def test_stop() -> None:
    with tempfile.TemporaryFile() as output:
        child = Child(["sleep", "1000"], output=output, ended=lambda: None)
        assert child.status is None
        child.stop(grace=60.0)
        assert child.status == -signal.SIGTERM


def test_stop_of_one_that_does_not_listen(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    with tempfile.TemporaryFile() as output:
        script = f"trap '' TERM; echo >{ready}; while :; do sleep 1; done"
        child = Child(["sh", "-c", script], output=output, ended=lambda: None)
        ready.read_text()
        child.stop(grace=0.1)
        assert child.status == -signal.SIGKILL


def test_descriptors_and_environment(tmp_path: Path) -> None:
    read, write = os.pipe()
    with tempfile.TemporaryFile() as output:
        child = Child(
            ["sh", "-c", f"echo $SOFTCXL_TEST >/proc/self/fd/{write}"],
            keep=[write],
            output=output,
            environment={"SOFTCXL_TEST": "here"},
            ended=lambda: None,
        )
        os.close(write)
        with os.fdopen(read) as file:
            assert file.read() == "here\n"
        assert child.wait(60.0)


def test_absent_program() -> None:
    with tempfile.TemporaryFile() as output:
        child = Child(["no-such-program"], output=output, ended=lambda: None)
        assert child.wait(60.0)
        assert child.status == 127
        output.seek(0)
        assert output.read() == b"no-such-program cannot be started: No such file or directory\n"


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/gone/python")
    refused = pytest.raises(LaunchError, match=r"No process can be started for x: No such")
    with tempfile.TemporaryFile() as output, refused:
        Child(["x"], output=output, ended=lambda: None)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_parent_takes_its_child_along(end: signal.Signals) -> None:
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": source},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        watched = os.pidfd_open(pid)
        # the thread that asked for the child is gone and the child is not
        os.kill(pid, 0)
        parent.send_signal(end)
        parent.wait()
    try:
        # readable when the process has ended; the test's own timeout is the bound
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.poll()
    finally:
        os.close(watched)
