"""The verb that says how fast a pool is: `bench`."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import click

from softcxl.cli.options import JSON
from softcxl.cli.parameters import Size
from softcxl.cli.pool.group import Reach, pool
from softcxl.cli.tables import emit, table

MIB = 1 << 20


@pool.command()
@click.option(
    "--size", "bytes_", type=Size(), default=64 * MIB, metavar="SIZE", help="Of the region; without it 64MiB."
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 8),
    default=1,
    metavar="N",
    help="Copies of the region; without it 1.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=9, metavar="N", help="Without it 9.")
@JSON
@click.pass_obj
def bench(reach: Reach, bytes_: int, replicas: int, rounds: int, as_json: bool) -> None:
    """Measure the pool from here: reading and writing against copies of plain memory, and allocations a second.

    A region is allocated for it, and freed again. Figures are medians; ratios are taken round by round.
    """
    if bytes_ < 1:
        raise click.UsageError("--size 0: a region has a byte at least")
    with reach.connect() as session:
        with session.allocate(bytes_, replicas=replicas) as region:
            source = bytearray(os.urandom(min(bytes_, MIB)) * -(-bytes_ // MIB))[:bytes_]
            target = bytearray(bytes_)
            ours, plain = memoryview(target), memoryview(source)

            def copy() -> None:
                ours[:] = plain

            work: dict[str, Callable[[], object]] = {
                "copy": copy,
                "read": lambda: region.read_into(0, target),
                "write": lambda: region.write(0, source),
            }
            for each in work.values():
                each()  # pages that nobody has touched yet are slow once
            times: dict[str, list[float]] = {name: [] for name in work}
            for _ in range(rounds):
                for name, each in work.items():
                    start = time.perf_counter()
                    each()
                    times[name].append(time.perf_counter() - start)
        found = [
            {
                "what": what,
                "value": bytes_ / statistics.median(times[name]) / 1e9,
                "unit": "GB/s",
                "to_copy": statistics.median(
                    plain / mine for plain, mine in zip(times["copy"], times[name], strict=True)
                ),
            }
            for what, name in (
                ("copy of plain memory", "copy"),
                ("read", "read"),
                (f"write, {replicas} {'copy' if replicas == 1 else 'copies'}", "write"),
            )
        ]
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < 0.2:
            session.allocate(4096).close()
            count += 1
        rate = count / (time.perf_counter() - start)
        found.append({"what": "allocate and free 4KiB", "value": rate, "unit": "a second", "to_copy": None})
    emit(as_json, found, _shown)


def _shown(found: list[dict[str, Any]]) -> object:
    return table(
        "",
        "",
        "",
        "to a copy",
        rows=(
            (
                one["what"],
                f"{one['value']:,.1f}" if one["unit"] == "GB/s" else f"{one['value']:,.0f}",
                one["unit"],
                None if one["to_copy"] is None else f"{one['to_copy']:.2f}",
            )
            for one in found
        ),
    )
