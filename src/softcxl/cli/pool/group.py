"""`softcxl pool`: the options ahead of its verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

import softcxl

if TYPE_CHECKING:
    from softcxl.pool.session import Pool

VERBS = ("list", "stat", "allocate", "free", "read", "write", "bench")
"""In the order in which `--help` shows them."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A pool, as the options ahead of a verb name it."""

    address: str | None
    client: str | None

    def connect(self) -> Pool:
        """Be a client of it. Raises `NoServer` where there is none."""
        return softcxl.connect(self.address, name="softcxl" if self.client is None else self.client)


class _Ordered(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)


@click.group(cls=_Ordered)
@click.option(
    "--pool",
    "address",
    metavar="ADDRESS",
    envvar="SOFTCXL_POOL",
    help="Where the pool is, as `softcxl serve` prints it: unix:PATH. Without it what SOFTCXL_POOL says, or the one "
    "server that runs.",
)
@click.option(
    "--as",
    "client",
    metavar="NAME",
    help="The client's name: whose regions, permissions and quota these are. Without it `softcxl`.",
)
@click.pass_context
def pool(ctx: click.Context, address: str | None, client: str | None) -> None:
    """Regions of a pool's memory: what there is, and what is in them.

    A pool is served by `softcxl serve TOPOLOGY` where the topology has the key `pool`. Sizes and offsets are numbers of
    bytes, or written like 64MiB; numbers are decimal or 0x….

    Exit status 1: the server refused, and the message says why. 3: no server is there.
    """
    ctx.obj = Reach(address, client)
