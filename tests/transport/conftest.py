"""Doors and clients for the tests, and the proof that nothing is left of them."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcxl.testing.vfio_client import Client
from softcxl.transport.vfio_user import Door
from tests.transport.ports import ScratchPort


def holdings() -> tuple[list[str], list[str], int]:
    """What this process holds: open files, threads, mapped memory files."""
    gc.collect()  # what earlier tests have let go of is not ours
    files = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            files.append(str(entry.readlink()))
        except FileNotFoundError:
            pass  # the listing's own descriptor
    threads = sorted(thread.name for thread in threading.enumerate())
    return sorted(files), threads, Path("/proc/self/maps").read_text().count("/memfd:")


def open_files() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(scope="module", autouse=True)
def _what_there_was_before() -> Iterator[None]:
    """What imports and earlier tests have made, a lot in a long run, is looked through once, and not for each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Files, threads and mappings are the same after the test as before it."""
    before = holdings()
    yield
    assert holdings() == before


@pytest.fixture
def port(no_leaks: None) -> Iterator[ScratchPort]:
    port = ScratchPort()
    yield port
    port.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "door.sock"


@pytest.fixture
def door(port: ScratchPort, path: Path) -> Iterator[Door]:
    with Door(port, path) as door:
        yield door


@pytest.fixture
def stranger(door: Door) -> Iterator[Client]:
    """A client that has not agreed on a version yet."""
    with Client(door.path) as client:
        yield client


@pytest.fixture
def client(stranger: Client) -> Client:
    """A client ready to work, as QEMU would be."""
    stranger.negotiate()
    return stranger
