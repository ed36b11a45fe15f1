"""What the commands have in common that act on a host: which fabric, which host, and where it is done."""

from __future__ import annotations

import json
from typing import Any

import click

from softcxl.cli.verbs import VERBS
from softcxl.fabric.build import Fabric
from softcxl.fabric.control import ask, socket_of
from softcxl.fabric.hosts import Hosts, Verb


def perform(topology: str, host_name: str | None, verb: Verb) -> None:
    """Do a verb to a host of a file, whose fabric lives as long as that takes, or of the server at an address. What it
    says is printed; a server's exit status that is not 0 is this program's."""
    if socket_of(topology) is None:
        with Fabric.load(topology) as fabric:
            Hosts(fabric, topology).perform(verb, host_name, _out, _err)
        return
    answer = ask(topology, _name(verb), verb, host_name)
    _out(answer.said)
    _err(answer.stderr)
    if answer.status:
        click.get_current_context().exit(answer.status)


def demand(address: str, host_name: str | None, verb: Verb) -> Any:
    """What a verb answers at a server, from JSON. Where it cannot be done this program ends as the verb does."""
    answer = ask(address, _name(verb), verb, host_name)
    _err(answer.stderr)
    if answer.status:
        click.get_current_context().exit(answer.status)
    return json.loads(answer.said)


def _name(verb: Verb) -> str:
    return next(name for name, kind in VERBS.items() if type(verb) is kind)


def _out(text: str | bytes) -> None:
    click.echo(text, nl=False)


def _err(text: str) -> None:
    click.echo(text, nl=False, err=True)
