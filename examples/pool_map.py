"""A key-value map that programs share, on this machine and in guests, and that survives any of them.

    python examples/pool_map.py put KEY VALUE
    python examples/pool_map.py get KEY
    python examples/pool_map.py list

The map is one region of the pool, of cells of a fixed size. A reader takes no lock: what `read` returns was there
at one moment. A writer takes the region's lock while it looks for a free cell, so that no two take the same; if it
dies with the lock, the next one takes it over. A cell is written whole or not at all, in both copies, whatever dies
in the middle of it.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator

import softcxl
from softcxl.pool.errors import NameTaken, PoolError
from softcxl.pool.session import Pool

CELLS = 1024
CELL = 256
HEAD = struct.Struct("<HH")  # bytes of the key (0: the cell is empty), bytes of the value


class SharedMap:
    """The map of that name, made if nobody has made it."""

    def __init__(self, pool: Pool, name: str) -> None:
        try:
            # With a name it stays when we go. A region is zeros at first: all cells are empty.
            self.region = pool.allocate(CELLS * CELL, name=name, replicas=2)
        except NameTaken:
            self.region = pool.open(name)

    def put(self, key: str, value: str) -> None:
        """Set it for all who look from now on. Raises ValueError where it does not fit."""
        data = key.encode(), value.encode()
        cell = HEAD.pack(*map(len, data)) + b"".join(data)
        if not key or len(cell) > CELL:
            raise ValueError(f"a key has a byte at least, and key and value {CELL - HEAD.size} at most")
        with self.region.locked():
            for number in self._places(key):
                if self._cell(number)[0] in ("", key):
                    self.region.write(number * CELL, cell)
                    return
        raise ValueError(f"the map is full: it has {CELLS} cells")

    def get(self, key: str) -> str | None:
        """The value, or None."""
        for number in self._places(key):
            found, value = self._cell(number)
            if found == key:
                return value
            if not found:
                break
        return None

    def items(self) -> Iterator[tuple[str, str]]:
        """All that is in it."""
        return (cell for number in range(CELLS) if (cell := self._cell(number))[0])

    @staticmethod
    def _places(key: str) -> Iterator[int]:
        """Where to look, in this order: from the key's own cell on, to the first one that is empty."""
        first = zlib.crc32(key.encode())
        return ((first + step) % CELLS for step in range(CELLS))

    def _cell(self, number: int) -> tuple[str, str]:
        data = self.region.read(number * CELL, CELL)
        key, value = HEAD.unpack_from(data)
        text = data[HEAD.size :]
        return text[:key].decode(), text[key : key + value].decode()


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["put", key, value]:
                with softcxl.connect(name="map") as pool:
                    SharedMap(pool, "map").put(key, value)
            case ["get", key]:
                with softcxl.connect(name="map") as pool:
                    found = SharedMap(pool, "map").get(key)
                if found is None:
                    print(f"pool_map: there is no {key!r}", file=sys.stderr)
                    return 1
                print(found)
            case ["list"]:
                with softcxl.connect(name="map") as pool:
                    for key, value in sorted(SharedMap(pool, "map").items()):
                        print(f"{key}={value}")
            case _:
                print((__doc__ or "").partition("\n\n")[2].partition("\n\n")[0], file=sys.stderr)
                return 2
    except (PoolError, ValueError) as error:
        print(f"pool_map: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
