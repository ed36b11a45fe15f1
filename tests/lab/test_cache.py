"""The cache folder: whole files or none, one writer at a time."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from softcxl.lab import cache
from softcxl.lab.errors import FetchError


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file may grow over `size` bytes: what a full disk looks like to a writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTCXL_CACHE", "/a/b")
    assert cache.folder() == Path("/a/b")
    monkeypatch.delenv("SOFTCXL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache.folder() == Path("/c/softcxl")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/her")
    assert cache.folder() == Path("/home/her/.cache/softcxl")


def test_file_is_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    with cache.replacing_file(target) as draft:
        draft.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(ZeroDivisionError), cache.replacing_file(target) as draft:
        draft.write_text(f"two{1 // 0}")
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_full_disk_is_a_sentence(tmp_path: Path) -> None:
    target = tmp_path / "file"
    refused = pytest.raises(FetchError, match=r"file could not be written: File too large")
    with refused, small_disk(1000), cache.replacing_file(target) as draft:
        draft.write_bytes(bytes(2000))
    assert list(tmp_path.iterdir()) == []


def test_folder_is_whole_or_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "parts"
    for text in ("one", "two"):
        with cache.replacing_folder(target) as draft:
            (draft / "file").write_text(text)
        assert (target / "file").read_text() == text
    with pytest.raises(ZeroDivisionError), cache.replacing_folder(target) as draft:
        (draft / "file").write_text(f"three{1 // 0}")
    assert (target / "file").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_drafts_of_killed_processes_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".parts.0123" / "deep").mkdir(parents=True)
    (tmp_path / "parts").mkdir()
    cache.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_lock_says_when_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTCXL_CACHE", str(tmp_path / "cache"))

    class WouldWait(Exception):
        pass

    def waiting() -> None:
        raise WouldWait

    with cache.locked("setup"):
        with pytest.raises(WouldWait), cache.locked("setup", waiting):
            pass
        with cache.locked("other", waiting):
            pass
    with cache.locked("setup", waiting):
        pass


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTCXL_CACHE", str(tmp_path / "file" / "cache"))
    refused = pytest.raises(FetchError, match=r"The cache folder .* cannot be written: Not a directory")
    with refused, cache.locked("setup"):
        pass
