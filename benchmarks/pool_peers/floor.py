"""The floor: C on both sides, one word each that the other looks at, and the bytes copied in and out."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
from pathlib import Path

from pool_peers.peer import LARGEST, Missing, Peer
from softcxl.pool.build import compiler

SIDE = 64 + LARGEST


class Floor(Peer):
    """What no runtime can go below."""

    polls = True

    def __init__(self) -> None:
        found = compiler()
        if found is None:
            raise Missing("there is no C compiler")
        self._command = found

    def prepare(self, folder: str) -> None:
        built = Path(folder, "floor.so")
        source = Path(__file__).with_suffix(".c")
        subprocess.run([self._command, "-O2", "-fPIC", "-shared", source, "-o", built], check=True)
        self._c = ctypes.CDLL(str(built))
        self._map = mmap.mmap(-1, 2 * SIDE + mmap.PAGESIZE)
        self._shared = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._turn = 1

    def serve(self, count: int, size: int) -> None:
        own = ctypes.create_string_buffer(size)
        self._run(self._c.serve, own, count)

    def ask(self, request: bytes) -> int:
        return self.ask_often(request, 1)

    def ask_often(self, request: bytes, count: int) -> int:
        own = ctypes.create_string_buffer(request, len(request))
        self._run(self._c.ask, own, count)
        return len(own.raw)

    def _run(self, function: object, own: ctypes.Array[ctypes.c_char], count: int) -> None:
        assert callable(function)
        words = (ctypes.c_uint64(one) for one in (len(own), self._turn, count))
        function(ctypes.c_void_p(self._shared), own, *words)
        self._turn += count
