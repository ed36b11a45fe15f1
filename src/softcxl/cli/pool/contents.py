"""Verbs for what is in a region: `read`, `write`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from softcxl.cli.options import JSON
from softcxl.cli.parameters import Hex, Size
from softcxl.cli.pool.group import Reach, pool
from softcxl.cli.tables import dump

PIECE = 16 << 20
"""Bytes that are moved at once, so that a large region needs no memory of its size here."""

_OFFSET = click.option(
    "--offset", type=Size(), default=0, metavar="N", help="From this byte of the region on; without it 0."
)


@pool.command()
@click.argument("name")
@click.argument("bytes_", metavar="[SIZE]", type=Size(), required=False)
@_OFFSET
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the bytes to FILE, as they are.",
)
@click.option(
    "--hex", "as_hex", is_flag=True, help="Print them in lines of 16, also where it is no terminal."
)
@JSON
@click.pass_obj
def read(
    reach: Reach,
    name: str,
    bytes_: int | None,
    offset: int,
    output: str | None,
    as_hex: bool,
    as_json: bool,
) -> None:
    """Read SIZE bytes of the region NAME, all that follow the offset if not said.

    They go to stdout as they are, or, if that is a terminal, in lines of 16. JSON has them in hexadecimal digits.
    """
    if output is not None and (as_hex or as_json):
        raise click.UsageError("--output writes the bytes as they are; --hex and --json go to stdout")
    with reach.connect() as session, session.open(name) as region:
        count = max(region.size - offset, 0) if bytes_ is None else bytes_
        pieces = (
            (at, region.read(at, min(PIECE, offset + count - at)))
            for at in range(offset, offset + count, PIECE)
        )
        if offset > region.size or count > region.size - offset:
            raise click.ClickException(f"{count} bytes from {offset}: the region {name} has {region.size}")
        if as_json:
            data = b"".join(piece for _, piece in pieces)
            click.echo(json.dumps({"name": name, "offset": offset, "data": data.hex()}))
        elif output is None and (as_hex or sys.stdout.isatty()):
            for at, piece in pieces:
                click.echo("\n".join(dump(piece, at)))
        else:
            with _opened(output) as file:
                for _, piece in pieces:
                    file.write(piece)


@contextmanager
def _opened(output: str | None) -> Iterator[BinaryIO]:
    if output is None:
        yield sys.stdout.buffer
        return
    with Path(output).open("wb") as file:
        yield file


@pool.command()
@click.argument("name")
@click.argument("source", metavar="[FILE|-]", required=False)
@_OFFSET
@click.option("--hex", "data", type=Hex(), metavar="HEX", help="Write these bytes, in hexadecimal digits.")
@JSON
@click.pass_obj
def write(
    reach: Reach, name: str, source: str | None, offset: int, data: bytes | None, as_json: bool
) -> None:
    """Write FILE, or what comes on stdin, into the region NAME.

    Nothing is written where it does not fit, if its length is known; of what comes from stdin, or a pipe, those bytes
    that fit are there when it fails. Every 16 MiB are written by themselves: others may see one piece before they see
    the next.
    """
    if (source is None) == (data is None):
        raise click.UsageError("what is to be written? FILE, - for stdin, or --hex")
    with _pieces(source, data) as (known, pieces), reach.connect() as session, session.open(name) as region:
        if offset > region.size or known > region.size - offset:
            raise click.ClickException(f"{known} bytes from {offset}: the region {name} has {region.size}")
        at = offset
        for piece in pieces:
            room = region.size - at
            region.write(at, memoryview(piece)[:room])
            if len(piece) > room:
                raise click.ClickException(
                    f"{'stdin' if source == '-' else source} has more than the {region.size - offset} bytes that fit "
                    f"from {offset}; those are written"
                )
            at += len(piece)
    if as_json:
        click.echo(json.dumps({"name": name, "offset": offset, "written": at - offset}))


@contextmanager
def _pieces(source: str | None, data: bytes | None) -> Iterator[tuple[int, Iterator[bytes]]]:
    """How many bytes there are, 0 where nobody knows before the end, and the bytes."""
    if data is not None:
        yield len(data), iter([data])
    elif source == "-":
        if sys.stdin is None:
            raise click.ClickException("stdin is closed: nothing can be read from there")
        yield 0, iter(lambda: sys.stdin.buffer.read(PIECE), b"")
    else:
        assert source is not None
        with Path(source).open("rb") as file:
            yield Path(source).stat().st_size, iter(lambda: file.read(PIECE), b"")
