"""Options and arguments that commands have alike."""

from __future__ import annotations

import click

HOST = click.option(
    "--host", "host_name", metavar="NAME", help="Which host of the file; without it the first."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
TOPOLOGY = click.argument("topology", type=click.Path(), metavar="TOPOLOGY|unix:PATH")
