"""What the commands have in common that act as a host in this process: which file, which host, and how they print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import SoftCXLError
from softcxl.host.system import System

HOST = click.option(
    "--host", "host_name", metavar="NAME", help="Which host of the file; without it the first."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
TOPOLOGY = click.argument("topology", type=click.Path())


class NoSuchHost(SoftCXLError):
    """The topology has not the host that was asked for, or none at all."""

    exit_code = 2


@contextmanager
def booted(topology: str, host_name: str | None) -> Iterator[tuple[Fabric, System, str]]:
    """The fabric of a file, an operating system booted on one of its hosts, and that host's name. What the system
    could not use is said on stderr."""
    with Fabric.load(topology) as fabric:
        names = list(fabric.hosts)
        if not names:
            raise NoSuchHost(f"{topology}: no host is in it")
        name = names[0] if host_name is None else host_name
        if name not in fabric.hosts:
            raise NoSuchHost(f"{name!r} is no host of {topology}; there are {', '.join(names)}")
        system = fabric.hosts[name].boot()
        for problem in system.problems:
            click.echo(f"softcxl: {name}: {problem}", err=True)
        yield fabric, system, name


def print_json(answer: Any) -> None:
    """Print an answer as json-c prints it for cxl: no space after a colon."""
    click.echo(json.dumps(answer, indent=2, separators=(",", ":"), ensure_ascii=False))
