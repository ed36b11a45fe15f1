"""The agent's host end: framing of output, whatever the bytes and however they are cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcxl.lab.agent import Agent, Stream
from softcxl.lab.errors import LabError

TOKEN = "0123456789abcdef"


@given(
    st.binary(),
    st.binary(),
    st.binary(),
    st.lists(st.integers(1, 40)),
)
def test_any_bytes_in_any_pieces(before: bytes, output: bytes, after: bytes, cuts: list[int]) -> None:
    stream = Stream(TOKEN)
    wire = before + b"%s<" % TOKEN.encode() + output + b"%s>" % TOKEN.encode() + after
    got, at = b"", 0
    for cut in [*cuts, len(wire)]:
        stream.feed(wire[at : at + cut])
        got += stream.take()
        at += cut
    assert stream.ended
    assert got == output


def test_output_comes_before_the_end() -> None:
    stream = Stream(TOKEN)
    stream.feed(f"{TOKEN}<hello\n".encode())
    assert stream.take() == b"hello\n"
    assert not stream.ended


def test_what_may_be_the_end_waits_for_what_follows() -> None:
    stream = Stream(TOKEN)
    stream.feed(f"{TOKEN}<and 0123".encode())
    assert stream.take() == b"and "
    stream.feed(b"4444")
    assert stream.take() == b"01234444"


@pytest.fixture
def line() -> Iterator[tuple[Agent, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield Agent(here, threading.Condition()), there


def test_ready(line: tuple[Agent, socket.socket]) -> None:
    agent, _ = line
    agent.feed_control(b"garbage of an earlier boot\nready 1b")
    assert agent.boot == ""
    agent.feed_control(b"oot 7.2.12+deb13-amd64\n")
    assert (agent.boot, agent.release) == ("1boot", "7.2.12+deb13-amd64")
    agent.forget()
    assert agent.boot == ""


def test_run(line: tuple[Agent, socket.socket]) -> None:
    agent, there = line
    agent.feed_control(b"ready boot 7\n")
    task = agent.run("echo é", b"in\0put")
    assert there.recv(1000) == f"run {task.token} boot 7 6\n".encode() + "echo é".encode() + b"in\0put"
    assert not task.done
    agent.feed_control(b"done 0000000000000000 1\n")
    assert not task.done
    agent.feed_control(f"done {task.token} 3\n".encode())
    agent.feed_out(f"{task.token}<out{task.token}>".encode())
    assert not task.done
    agent.feed_err(f"{task.token}<err{task.token}>".encode())
    assert task.done
    assert (task.out.take(), task.err.take()) == (b"out", b"err")


def test_shell_and_signals(line: tuple[Agent, socket.socket]) -> None:
    agent, there = line
    agent.feed_control(b"ready boot 7\n")
    task = agent.shell(24, 80, "xterm;reboot")
    assert there.recv(1000) == f"shell {task.token} boot 24 80 xtermreboot\n".encode()
    agent.resize(50, 132)
    agent.kill(task, "HUP")
    assert there.recv(1000) == f"resize 50 132\nkill {task.token} HUP\n".encode()


@pytest.mark.parametrize("command", ["", "echo \0"])
def test_commands_that_cannot_be(line: tuple[Agent, socket.socket], command: str) -> None:
    with pytest.raises(LabError, match=r"neither empty nor does it hold NUL"):
        line[0].run(command)


def test_output_without_a_task_is_nobodys(line: tuple[Agent, socket.socket]) -> None:
    line[0].feed_out(b"late words")
    line[0].feed_err(b"late words")


def test_short_output_is_not_held_back() -> None:
    stream = Stream(TOKEN)
    stream.feed(f"{TOKEN}<first\n".encode())
    assert stream.take() == b"first\n"
    # what looks like the end marker's beginning is, until more is known
    stream.feed(b"0123")
    assert stream.take() == b""
    stream.feed(b"4 no")
    assert stream.take() == b"01234 no"
