"""What programs give that cannot be, and what they are told; and what they cannot do with what they have."""

from __future__ import annotations

import copy
import gc
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import softcxl
from softcxl.pool import errors
from softcxl.pool.session import Pool
from tests.pool.served import Served, wait_until


@pytest.fixture
def pool(served: Served) -> Iterator[Pool]:
    with served.connect("user") as one:
        yield one


# -- sizes, numbers, names -------------------------------------------------------------------------------------------

MOST = 1 << 55


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"size": 0}, f"size=0: it is between 1 and {MOST}"),
        ({"size": MOST + 1}, f"size={MOST + 1}: it is between 1 and {MOST}"),
        ({"size": 1.5}, r"size=1.5: it is a whole number"),
        ({"size": True}, r"size=True: it is a whole number"),
        ({"size": b"64"}, r"size=b'64': it is a whole number"),
        ({"size": None}, r"size=None: it is a whole number"),
        ({"size": math.nan}, r"size=nan: it is a whole number"),
        ({"size": "64XB"}, r"size='64XB': '64XB' has no known unit; units are B, KiB"),
        ({"size": 64, "replicas": 1.5}, r"replicas=1.5: it is a whole number"),
        ({"size": 64, "replicas": "2"}, r"replicas='2': it is a whole number"),
        ({"size": 64, "replicas": 9}, r"replicas=9: it is between 1 and 8"),
        ({"size": 64, "lease": "10s"}, r"lease='10s': it is between 0 and 1,000,000,000 seconds"),
        ({"size": 64, "lease": math.nan}, r"lease=nan: it is between 0 and 1,000,000,000 seconds"),
        ({"size": 64, "lease": -1}, r"lease=-1: it is between 0 and 1,000,000,000 seconds"),
    ],
)
def test_a_region_that_cannot_be_is_refused(pool: Pool, given: dict[str, Any], told: str) -> None:
    with pytest.raises(errors.Refused, match=f"^{told}"):
        pool.allocate(**given)


def test_numbers_of_numpy_are_numbers(pool: Pool) -> None:
    given: dict[str, Any] = {"size": np.int64(4096), "replicas": np.int32(2), "lease": np.float32(0.5)}
    with pool.allocate(**given) as region:
        assert (region.size, len(region.info.copies)) == (4096, 2)
    with pytest.raises(errors.Refused, match=r"count=1.5: it is a whole number"):
        pool.allocate_many(64, 1.5)  # type: ignore[arg-type]


UNFIT = ["", "a" * 64, "a\nb", "a\x7f", "a\x85b", "a\x9bb", "a\u2028b", "a\u2029b", "a\ud800", "a\0b"]


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_no_name_is_so_everywhere(pool: Pool, name: str) -> None:
    uses: list[Callable[[], object]] = [
        lambda: pool.allocate(64, name=name),
        lambda: pool.open(name),
        lambda: pool.free(name),
        lambda: pool.ring(name).producer(),
        lambda: pool.queue(name),
        lambda: pool.remove(ring=name),
        lambda: pool.service(name),
        lambda: pool.client(name),
        lambda: softcxl.connect(pool.address, name=name),
    ]
    for use in uses:
        with pytest.raises(errors.Refused, match="is no name: one has 1 to 63 bytes of UTF-8"):
            use()


def test_names_in_all_languages_are_names(pool: Pool) -> None:
    for name in ("é" * 31, "名前", "with space", "🚀", "a\u0301", "a" * 63):
        pool.allocate(64, name=name).close()
        assert pool.open(name).name == name


def test_what_is_no_text_is_no_name_and_no_address(pool: Pool, tmp_path: Path) -> None:
    for use in (
        lambda: pool.allocate(64, name=5),  # type: ignore[arg-type]
        lambda: pool.open(b"x"),  # type: ignore[arg-type]
        lambda: pool.queue(None),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match="a name is text, not"):
            use()
    with pytest.raises(TypeError, match="a pool's address is text like unix:PATH, not"):
        softcxl.connect(tmp_path)  # type: ignore[arg-type]


def test_channels_that_cannot_be_are_refused(pool: Pool) -> None:
    for cells in (0, 1, -2, 1.5, "x", 10**15):
        with pytest.raises(errors.Refused, match=r"cells=.*: it is (between 2 and|a whole number)"):
            pool.queue("q", cells=cells)  # type: ignore[arg-type]
    for size in (0, -1, 1.5, True, 10**15):
        with pytest.raises(errors.Refused, match=f"size={size}: it is (between 1 and|a whole number)"):
            pool.ring("r", size)  # type: ignore[arg-type]
    with pytest.raises(errors.Refused, match="ring=NAME, queue=NAME"):
        pool.remove()


def test_what_is_too_long_says_how_long_it_may_be(pool: Pool) -> None:
    producer, queue = pool.ring("r", 4096).producer(), pool.queue("q")
    with pytest.raises(errors.TooLong, match=r"ring 'r'>: a record of 5000 bytes, where it has 4096 for all"):
        producer.send(bytes(5000))
    with pytest.raises(errors.TooLong, match=r"queue 'q'>: a record of 5000 bytes, where one has 1008"):
        queue.put(np.zeros(625))


def test_a_shape_may_be_a_number(pool: Pool) -> None:
    with pool.allocate(4096) as region:
        assert region.numpy("<u4", 16).shape == (16,)
        with pytest.raises(errors.Refused, match=r"\(1025,\) of uint32: the region has 4096 bytes"):
            region.numpy("<u4", 1025)


# -- copies, and how things look -------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_is_open_is_not_copied(pool: Pool, attempt: Callable[[object], object]) -> None:
    """One that was copied would free, as it goes, what the other has open."""
    region = pool.allocate(4096)
    region.write(0, b"kept")
    with pytest.raises(TypeError, match="cannot be copied or pickled: open it once more"):
        attempt(region)
    with pytest.raises(TypeError, match="cannot be copied or pickled: another program connects for itself"):
        attempt(pool)
    gc.collect()
    with pool.allocate(64):  # what was left to the pool's thread is done by then
        wait_until(lambda: not pool._watch._left_over)
    assert region.read(0, 4) == b"kept"


def test_what_things_look_like(pool: Pool) -> None:
    named, bare = pool.allocate(64, name="notes"), pool.allocate(64)
    at = f"in {pool.address}"
    assert repr(named) == f"<Region 'notes' of 64 bytes {at}>"
    assert repr(bare) == f"<Region {bare.index} of 64 bytes {at}>"
    named.close()
    assert repr(named) == f"<Region 'notes' of 64 bytes {at}, closed>"
    pool.free("notes")
    assert repr(named) == f"<Region {named.index} of 64 bytes {at}, closed>"
    assert repr(pool) == f"<Pool {pool.address} as 'user', slot {pool.slot}>"
    pool.close()
    assert repr(bare).startswith(f"<Region {bare.index} of 64 bytes {at}")
    assert repr(pool) == f"<Pool {pool.address} as 'user', slot {pool.slot}, ended>"
