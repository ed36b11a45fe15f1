"""`softcxl journal`: what happened to a fabric, from its state folder or its live server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from softcxl.cli.booted import demand
from softcxl.cli.options import JSON, TOPOLOGY
from softcxl.cli.verbs import Journal
from softcxl.fabric import topology as files
from softcxl.fabric.control import socket_of
from softcxl.fabric.errors import NotHere
from softcxl.fabric.journal import Entry, read

_PART = 1000  # rows in one answer of a server
_WAIT = 1.0  # seconds that a server waits for more, which is how long it may take to end
_LOOK = 0.5  # seconds from one look at a file to the next


@click.command()
@TOPOLOGY
@click.option(
    "--since", type=click.IntRange(min=0), default=0, metavar="N", help="Only what came after number N."
)
@click.option("--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@JSON
def journal(topology: str, since: int, follow: bool, as_json: bool) -> None:
    """Print what happened to the fabric of TOPOLOGY, in order: a line each, with its number and when (UTC).

    Of a file it is what is in its `state` folder, whether a server is on it or not; a server's address gives its
    journal also where no state is kept. Numbers have no gap. With --json each line is an object: seq, time, kind,
    subject and detail.
    """
    if socket_of(topology) is not None:
        entries = _served(topology, since, follow)
    else:
        entries = _kept(topology, since, follow)
    for entry in entries:
        click.echo(json.dumps(entry.plain(), separators=(",", ":")) if as_json else entry)


def _served(address: str, since: int, follow: bool) -> Iterator[Entry]:
    first = True
    while True:
        rows: list[dict[str, Any]] = demand(
            address, None, Journal(since, _PART, 0.0 if first or not follow else _WAIT)
        )
        entries = [Entry(**one) for one in rows]
        if first:
            _lost(entries, since)
        yield from entries
        since = entries[-1].seq if entries else since
        first = False
        if not follow and len(entries) < _PART:
            return


def _kept(topology: str, since: int, follow: bool) -> Iterator[Entry]:
    state = files.load(topology).state
    if state is None:
        raise NotHere(
            f"{topology}: it has no `state` folder, so that its journal is its server's alone "
            "(softcxl journal unix:PATH)"
        )
    entries = read(Path(state), since)
    _lost(entries, since)
    while True:
        yield from entries
        if not follow:
            return
        since = entries[-1].seq if entries else since
        time.sleep(_LOOK)
        entries = read(Path(state), since)


def _lost(entries: list[Entry], since: int) -> None:
    if entries and entries[0].seq > since + 1:
        click.echo(f"softcxl: {since + 1} to {entries[0].seq - 1} are no longer kept", err=True)
