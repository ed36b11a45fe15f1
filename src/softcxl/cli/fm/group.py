"""`softcxl fm`: the options ahead of its verbs."""

from __future__ import annotations

import click

from softcxl.cli.fm.parameters import Endpoint
from softcxl.cli.fm.reach import Reach
from softcxl.fm import Dialect

#: What `--help` shows, in this order.
SECTIONS = {
    "Switches": (
        "identify",
        "tree",
        "ports",
        "port",
        "switches",
        "bind",
        "unbind",
        "aer",
        "config",
        "memory",
        "domain",
    ),
    "Devices": ("ld", "qos", "heads", "dc"),
    "Memory of a host's own, for a lease": ("grant", "grants", "renew", "revoke"),
    "Any component": (
        "events",
        "clock",
        "commands",
        "background",
        "abort",
        "limit",
        "raw",
        "tunnel",
        "control",
    ),
}


class _Sections(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in SECTIONS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in SECTIONS.items():
            with formatter.section(title):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl([(name, one.get_short_help_str(90)) for name, one in commands if one])


@click.group(cls=_Sections)
@click.option(
    "--at",
    "address",
    metavar="ADDRESS",
    envvar="SOFTCXL_FM",
    help="Where the endpoint is: tcp:HOST:PORT, or unix:PATH of a `softcxl serve`, which says where its own is. "
    "Without it what SOFTCXL_FM says.",
)
@click.option(
    "--dialect",
    type=click.Choice([one.value for one in Dialect]),
    help="How the endpoint lays out its messages: as the standard, or as tools of CXL 2.0's time. Without it as the "
    "server says, or the standard.",
)
@click.option(
    "--eid",
    type=Endpoint(),
    default=0,
    metavar="N|NAME",
    help="Which endpoint at the address, by its endpoint ID, or at a server of ours by its name; without it "
    "0, the first one.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    metavar="SECONDS",
    help="How long an answer may take; without it 5.",
)
@click.pass_context
def fm(ctx: click.Context, address: str | None, dialect: str | None, eid: int | str, timeout: float) -> None:
    """Manage a fabric by the FM API: switches, virtual switches, logical devices, dynamic capacity.

    The endpoint may be that of our own service (`softcxl serve TOPOLOGY --fm tcp:HOST:PORT`) or any other one that
    speaks MCTP over TCP. Numbers are decimal or 0x….

    Exit status 1: the endpoint refused, and the message has its return code. 3: nobody listens there, no answer came in
    time, or what came is none.
    """
    ctx.obj = Reach(address, None if dialect is None else Dialect(dialect), eid, timeout)
