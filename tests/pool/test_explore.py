"""The core under all interleavings of a few processes, as far as a bound on preemptions goes, whoever dies.

A longer exploration: SOFTCXL_EXPLORE=1 allows one preemption more than these tests, 2 two (hours), and ten thousand
times as many schedules at random. The programs take the same by hand: how many preemptions more, how many at random,
and which one of what they explore. Where states are too many to be kept, the program says "not all".
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.pool.header import CORE, ran

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "source", ["explore_queue.c", "explore_calls.c", "explore_ring.c", "explore_region.c"]
)
def test_nothing_is_lost_in_any_order_of_steps(source: str, tmp_path: Path) -> None:
    more = int(os.environ.get("SOFTCXL_EXPLORE", "0"))
    status, said = ran(HERE / source, tmp_path, more, 10_000_000 if more else 1000)
    assert status == 0, said
    schedules = [int(line.partition(": ")[2].split()[0]) for line in said.splitlines()]
    assert schedules
    assert min(schedules) > 100


# What was once wrong: where, what it was, what the explorer says of it.
_LATE_CONSUMER = {"\t\t\tscxl_recede(user, ticket);": ""}
_MISSED_WAKE = {"(waiting & ~all) + all + 1": "0"}
_LATE_MENDER = {
    "ahead <= 4 * (user->mask + 1)": "ahead <= user->mask + 1",
    "\tfor (;;) {\n\t\tuint64_t head = scxl_load(&user->queue->head), behind = (head - ticket) & SCXL_TICKETS;\n"
    "\t\tuint64_t word = scxl_load(&scxl_cell_of(user, ticket)->word);\n": (
        "\tuint64_t word = scxl_load(&scxl_cell_of(user, ticket)->word);\n"
        "\tfor (;;) {\n\t\tuint64_t head = scxl_load(&user->queue->head), behind = (head - ticket) & SCXL_TICKETS;\n"
    ),
}
_HINTS_FIRST = {
    "\tscxl_fence();\n\tmemset(at, 0, SCXL_QUEUE_HEADER);\n": "",
    "\tfor (uint32_t i = 0; i < cells; i++)\n": (
        "\tmemset(at, 0, SCXL_QUEUE_HEADER);\n\tfor (uint32_t i = 0; i < cells; i++)\n"
    ),
}
_CALLED_AHEAD = {"look == SCXL_OK && begun == worker->begun": "look == SCXL_OK"}
_TOUCHED_COPY = {" && (after >> 2 & 0x3f) != copy": ""}


@pytest.mark.parametrize(
    ("source", "header", "wrong", "scenario", "found"),
    [
        ("explore_queue.c", "softcxl_pool.h", _LATE_CONSUMER, "two take", "record 12 is lost"),
        ("explore_queue.c", "softcxl_pool.h", _MISSED_WAKE, "two sleep", "B is stuck"),
        ("explore_queue.c", "softcxl_pool.h", _LATE_MENDER, "two put, one takes", "draining ends with 5"),
        ("explore_queue.c", "softcxl_pool.h", _HINTS_FIRST, "made anew", "cannot put any more"),
        ("explore_calls.c", "softcxl_calls.h", _CALLED_AHEAD, "four are begun", "what client 0 began first"),
        ("explore_region.c", "softcxl_region.h", _TOUCHED_COPY, "two copies, one reads", "a part of a write"),
    ],
)
def test_what_was_wrong_would_be_found(
    source: str, header: str, wrong: dict[str, str], scenario: str, found: str, tmp_path: Path
) -> None:
    core = tmp_path / "core"
    shutil.copytree(CORE, core)
    text = (core / header).read_text()
    for right, was in wrong.items():
        assert text.count(right) == 1
        text = text.replace(right, was)
    (core / header).write_text(text)
    status, said = ran(HERE / source, tmp_path, 0, 0, scenario, core=core)
    assert status == 1
    assert said.startswith(f"{scenario}: {found}")
