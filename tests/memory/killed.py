"""A program that is killed with SIGKILL at every n-th step that touches a file, and looks what is left.

Run as ``python killed.py FOLDER``. Prints the number of steps at which it was killed; any byte that is not
where a residency map says makes it fail. Steps are cut in half where they can be: half of the bytes are
stored, then the process dies.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from pathlib import Path

from softcxl.memory import DpaSpace, Interleave, Medium, Window, sparse, strides

KIB = 1024
CAPACITY = 64 * KIB
SIZE = 256 * KIB
NAMES = ("a", "b", "c")
CONTENT = {name: random.Random(name).randbytes(CAPACITY // 2) + bytes(CAPACITY // 2) for name in NAMES}
BASES = (1 << 32, 1 << 33)


def opened(folder):
    windows = tuple(Window(base, SIZE, Medium.open(folder / f"w{base:x}", SIZE)) for base in BASES)
    spaces = {
        name: DpaSpace(Medium.open(folder / name, CAPACITY), CAPACITY, name, windows=windows)
        for name in NAMES
    }
    return windows, spaces


def closed(windows, spaces):
    for window in windows:
        window.medium.close()
    for space in spaces.values():
        space.home.close()


def begin(folder):
    """Two devices interleaved in the first window, the third alone beside them."""
    folder.mkdir()
    (folder / f"w{BASES[0]:x}.json.new").write_text(
        '{"format": 1, "resid'
    )  # what a kill while writing leaves
    windows, spaces = opened(folder)
    for name, space in spaces.items():
        space.write(0, CONTENT[name])
    for position, name in enumerate("ab"):
        spaces[name].commit(windows[0], BASES[0], 2 * CAPACITY, Interleave(2, 256), position, 0)
    spaces["c"].commit(windows[0], BASES[0] + 2 * CAPACITY, CAPACITY, Interleave(), 0, 0)
    closed(windows, spaces)


def work(folder):
    """Other geometries, over each other, within a window and between two."""
    windows, spaces = opened(folder)
    first, second = windows
    spaces["a"].commit(second, BASES[1], CAPACITY, Interleave(), 0, 0)
    spaces["b"].commit(first, BASES[0] + CAPACITY, 192 * KIB, Interleave(3, 4096), 2, 0)
    spaces["a"].release()
    spaces["a"].commit(first, BASES[0], 2 * CAPACITY, Interleave(4, 512, (0x4200,)), 1, 4 * KIB)
    spaces["c"].commit(second, BASES[1] + 32 * KIB, CAPACITY, Interleave(2, 256), 1, 32 * KIB)
    spaces["c"].clear(60 * KIB, 4 * KIB)


def look(folder, after):
    windows, spaces = opened(folder)
    for name, space in spaces.items():
        assert space.read(0, CAPACITY) == CONTENT[name], f"killed at step {after}: {name} has other bytes"
    places = {name: space.parts(0, CAPACITY) for name, space in spaces.items()}
    # What was interrupted can be done again, and what junk the kill left does not show.
    for position, name in enumerate(NAMES):
        spaces[name].commit(windows[0], BASES[0], 3 * CAPACITY, Interleave(3, 256), position, 0)
    for name, space in spaces.items():
        assert space.read(0, CAPACITY) == CONTENT[name], f"killed at step {after}: {name} from {places}"
    closed(windows, spaces)


class Killer:
    """Counts the steps that touch files and ends the process within the one that was asked for."""

    def __init__(self, step):
        self.left = step

    def wrap(self, owner, name, half=None, instead=None):
        original = getattr(owner, name)

        def step(*arguments, **named):
            self.left -= 1
            if self.left < 0:
                if half:
                    half(original, *arguments, **named)
                os.kill(os.getpid(), signal.SIGKILL)
            return (instead or original)(*arguments, **named)

        setattr(owner, name, step)

    def arm(self):
        self.wrap(
            os, "pwrite", half=lambda write, fd, data, offset: write(fd, data[: len(data) // 2], offset)
        )
        self.wrap(sparse, "punch", half=lambda punch, fd, offset, size: punch(fd, offset, max(size // 2, 1)))
        self.wrap(strides, "scatter", half=half_scatter)
        # A killed process loses nothing that it had written, synced or not: the syncs only take time here.
        self.wrap(os, "fdatasync", instead=lambda fd: None)
        self.wrap(os, "fsync", instead=lambda fd: None)
        self.wrap(Path, "replace")


def half_scatter(scatter, region, interleave, position, dpa_offset, data, size=None):
    count = (data.size if data is not None else size) // 2
    scatter(region, interleave, position, dpa_offset, None if data is None else data[:count], count)


def main(folder):
    folder.mkdir(exist_ok=True)
    step = 0
    while True:
        here = folder / str(step)
        begin(here)
        child = os.fork()
        if not child:
            Killer(step).arm()
            work(here)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), f"step {step}: exit {status}"
        look(here, step)
        shutil.rmtree(here)
        if status == 0:
            break
        step += 1
    print(step)


if __name__ == "__main__":
    os.fdatasync = os.fsync = lambda fd: None
    main(Path(sys.argv[1]))
