"""Whether a machine that a device was taken from may reach its memory yet."""

import os
import signal
import stat
import subprocess
import sys

import pytest

from softcxl.device.access.machine import Machine, files

MAPS = """
import mmap, sys
one = mmap.mmap(int(sys.argv[1]), 4096)
print("mapped", flush=True)
sys.stdin.readline()
one.close()
print("closed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def memory():
    fd = os.memfd_create("memory")
    os.truncate(fd, 4096)
    yield fd
    os.close(fd)


@pytest.fixture
def process(memory):
    one = subprocess.Popen(
        [sys.executable, "-c", MAPS, str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[memory],
    )
    assert one.stdout is not None
    assert one.stdout.readline() == "mapped\n"
    yield one
    one.kill()
    one.communicate(timeout=60)


def test_who_is_stopped_reaches_what_it_has_mapped(memory, process):
    machine = Machine.of(process.pid)
    assert machine is not None
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert machine.maps(files([memory]))
    assert not machine.maps(frozenset())
    process.send_signal(signal.SIGCONT)
    process.stdin.write("close\n")
    process.stdin.flush()
    assert process.stdout.readline() == "closed\n"
    assert not machine.maps(files([memory]))
    assert not machine.ended()
    machine.close()


def test_a_file_is_known_by_what_maps_say_of_it_though_fstat_names_another_device(
    memory, process, monkeypatch
):
    """As on btrfs, whose subvolumes have devices of their own in fstat alone."""
    real = os.fstat

    def other_device(fd: int) -> os.stat_result:
        fields = list(real(fd))[:10]
        fields[stat.ST_DEV] = 0x77
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", other_device)
    machine = Machine.of(process.pid)
    assert machine is not None
    assert machine.maps(files([memory]))
    machine.close()


def test_who_has_ended_reaches_nothing(memory, process):
    machine = Machine.of(process.pid)
    assert machine is not None
    process.kill()
    assert machine.ended(60)
    assert not machine.maps(files([memory]))
    machine.close()


def test_this_process_and_none_are_no_machines(process):
    assert Machine.of(os.getpid()) is None
    assert Machine.of(0) is None
    process.kill()
    process.wait()
    assert Machine.of(process.pid) is None
