"""What a window remembers across runs, and in which order it reaches the disk."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from softcxl.memory import (
    DpaSpace,
    Interleave,
    MapDamaged,
    Medium,
    MediumFull,
    ResidencyError,
    ResidentAbsent,
    Window,
)

KIB = 1024
SIZE = 256 * KIB
CAPACITY = 64 * KIB
BASE = 1 << 32
TWO = Interleave(2, 256)


class Run:
    """One life of the process: a named window and named devices, closed like a process that ends."""

    def __init__(self, folder, *names, base=BASE, **options):
        self.file = Medium.open(folder / "w", SIZE)
        self.media = [self.file]
        self.window = None
        self.folder, self.names, self.base, self.options = folder, names, base, options

    def __enter__(self):
        self.window = Window(self.base, SIZE, self.file)
        self.spaces = []
        for name in self.names:
            self.media.append(Medium.open(self.folder / name, CAPACITY))
            self.spaces.append(
                DpaSpace(self.media[-1], CAPACITY, name, windows=(self.window,), **self.options)
            )
        return self

    def __exit__(self, *_):
        for medium in self.media:
            medium.close()


def content(name):
    return random.Random(name).randbytes(CAPACITY)


def filled(folder):
    with Run(folder, "a", "b") as run:
        for position, space in enumerate(run.spaces):
            space.write(0, content(space.name))
            space.commit(run.window, BASE, 2 * CAPACITY, TWO, position, 0)
        return run.window.residents


def test_bytes_are_found_again_and_the_same_region_moves_nothing(tmp_path):
    residents = filled(tmp_path)
    with Run(tmp_path, "a", "b") as run:
        assert run.window.residents == residents
        for position, space in enumerate(run.spaces):
            assert space.read(0, CAPACITY) == content(space.name)
            assert space.dpa_to_hpa(0) is None
            assert space.commit(run.window, BASE, 2 * CAPACITY, TWO, position, 0) == 0


def test_a_window_may_stand_elsewhere_in_the_next_run(tmp_path):
    filled(tmp_path)
    with Run(tmp_path, "a", "b", base=3 << 32) as run:
        assert run.spaces[1].commit(run.window, 3 << 32, 2 * CAPACITY, TWO, 1, 0) == 0
        assert run.spaces[1].read(0, CAPACITY) == content("b")


def test_xor_geometries_are_remembered_with_the_address_they_looked_at(tmp_path):
    shuffled = Interleave(4, 512, (0x4200, 0x8400))
    for moved in (CAPACITY, 0):
        with Run(tmp_path, "a") as run:
            if moved:
                run.spaces[0].write(0, content("a"))
            assert run.spaces[0].commit(run.window, BASE, SIZE, shuffled, 2, 0) == moved
            assert run.spaces[0].read(0, CAPACITY) == content("a")


def test_bytes_of_an_absent_device_are_not_overwritten(tmp_path):
    filled(tmp_path)
    with Run(tmp_path, "a", "c") as run:
        before = run.file.read(0, SIZE)
        with pytest.raises(ResidentAbsent, match="DPA 0x0 to 0x7fff of b rests there"):
            run.spaces[1].commit(run.window, BASE, CAPACITY, Interleave(), 0, 0)
        assert run.file.read(0, SIZE) == before
        # Where nobody rests there is room; the absent device's bytes stay through it.
        run.spaces[1].commit(run.window, BASE + 2 * CAPACITY, CAPACITY, Interleave(), 0, 0)
    with Run(tmp_path, "b") as run:
        assert run.spaces[0].read(0, CAPACITY) == content("b")


def test_volatile_bytes_are_not_remembered(tmp_path):
    with Run(tmp_path, "a", "b", persistent_from=48 * KIB) as run:
        for position, space in enumerate(run.spaces):
            space.write(0, content(space.name))
            space.commit(run.window, BASE, 2 * CAPACITY, TWO, position, 0)
    with Run(tmp_path, "a", "b", persistent_from=48 * KIB) as run:
        assert [(one.start, one.end) for one in run.window.residents] == [(48 * KIB, CAPACITY)] * 2
        assert run.spaces[0].read(48 * KIB, 16 * KIB) == content("a")[48 * KIB :]
        run.spaces[0].persistent_from = 0
    with Run(tmp_path, "a", "b") as run:
        assert run.spaces[0].read(0, 48 * KIB) == bytes(48 * KIB)


def test_a_boundary_that_moves_down_is_remembered(tmp_path):
    with Run(tmp_path, "a", persistent_from=CAPACITY) as run:
        run.spaces[0].write(0, content("a"))
        run.spaces[0].commit(run.window, BASE, CAPACITY, Interleave(), 0, 0)
        assert not (tmp_path / "w.json").exists()
        run.spaces[0].persistent_from = 16 * KIB
    with Run(tmp_path, "a", persistent_from=16 * KIB) as run:
        assert run.spaces[0].read(16 * KIB, 48 * KIB) == content("a")[16 * KIB :]


def damaged(change):
    def spoil(page):
        content = json.loads(page.read_text())
        change(content)
        page.write_text(json.dumps(content))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda page: page.write_text('{"format": 1, "resid'), "not a residency map"),
        (lambda page: page.write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda page: page.write_text("[]"), "not a residency map"),
        (damaged(lambda page: page.update(format=2)), "format 2, this version reads 1"),
        (damaged(lambda page: page.pop("residents")), "not a residency map"),
        (damaged(lambda page: page["residents"][0]["stripe"].update(position=2)), "position 2"),
        (damaged(lambda page: page["residents"][0].update(end=2 * SIZE)), "is not within the 0x40000 bytes"),
        (damaged(lambda page: page["residents"].append(page["residents"][0])), "DPA 0x0 of a is there twice"),
        (damaged(lambda page: page["residents"][0].update(end=CAPACITY + 512)), "only 0x10000 bytes"),
    ],
)
def test_a_damaged_map_is_said_and_left(tmp_path, spoil, words):
    filled(tmp_path)
    spoil(tmp_path / "w.json")
    before = (tmp_path / "w.json").read_bytes()
    run = Run(tmp_path, "a", "b")
    with pytest.raises(MapDamaged, match=words) as caught:
        run.__enter__()
    assert str(tmp_path / "w.json") in str(caught.value)
    run.__exit__()
    assert (tmp_path / "w.json").read_bytes() == before


def test_bytes_in_two_windows_are_refused(tmp_path):
    filled(tmp_path)
    (tmp_path / "v.json").write_bytes((tmp_path / "w.json").read_bytes())
    with Run(tmp_path, "a") as run, Medium.open(tmp_path / "v", SIZE) as file:
        other = Window(BASE * 2, SIZE, file)
        with pytest.raises(ResidencyError, match=r"a: DPA 0x0 rests in .* and "):
            run.spaces[0].attach(other)


def test_a_map_that_cannot_be_saved_changes_nothing(tmp_path, monkeypatch):
    filled(tmp_path)
    with Run(tmp_path, "a", "b") as run:

        def full(*_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(
                MediumFull, match=r"w\.json: the residency map cannot be saved: No space left"
            ):
                run.spaces[0].commit(run.window, BASE, CAPACITY, Interleave(), 0, 0)
        assert [space.read(0, CAPACITY) for space in run.spaces] == [content("a"), content("b")]
    with Run(tmp_path, "a", "b") as run:
        assert [space.read(0, CAPACITY) for space in run.spaces] == [content("a"), content("b")]


def test_copies_are_on_disk_before_the_map_that_names_them(tmp_path, monkeypatch):
    """A power cut, unlike a kill, also loses what was not synced."""
    filled(tmp_path)
    unsynced, published = set(), []
    with Run(tmp_path, "a", "b") as run:
        media = {medium.fd: medium.name for medium in run.media}
        original = {name: getattr(os, name) for name in ("pwrite", "fdatasync", "fsync")}

        def pwrite(fd, data, offset):
            unsynced.add(media[fd])
            return original["pwrite"](fd, data, offset)

        def reserve(self, offset, size):  # every store through a view is announced by this
            unsynced.add(self.name)

        def fdatasync(fd):
            unsynced.discard(media[fd])

        def replace(draft, page):
            published.append(set(unsynced))
            return original_replace(draft, page)

        original_replace = Path.replace
        monkeypatch.setattr(os, "pwrite", pwrite)
        monkeypatch.setattr(os, "fdatasync", fdatasync)
        monkeypatch.setattr(Medium, "reserve", reserve)
        monkeypatch.setattr(Path, "replace", replace)
        run.spaces[0].commit(run.window, BASE, SIZE, Interleave(4, 4096), 1, 0)
        run.spaces[0].sync()
        assert not unsynced
    assert published == [set(), set()]


def test_killed_at_any_step_no_byte_is_lost(tmp_path):
    program = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path / "runs"],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.stderr == ""
    assert int(done.stdout) > 50
