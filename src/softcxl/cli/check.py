"""`softcxl check`: is this topology file right, and what fabric is it?"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from softcxl.fabric.topology import Topology, TopologyError, load
from softcxl.fabric.tree import to_json, tree
from softcxl.lab.limits import limits


@click.command()
@click.argument("topology", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print the topology, or its problems, as JSON.")
@click.pass_context
def check(ctx: click.Context, topology: str, as_json: bool) -> None:
    """Validate the file TOPOLOGY and show its fabric as a tree.

    Every problem is reported as FILE:LINE:COLUMN: KEY: what is wrong and what is allowed; the exit status
    is 2 then. What a guest in QEMU cannot have of the fabric is noted below the tree. With --json the answer
    is one object on stdout: {"valid": true, "topology": …, "qemu": [{host, boots, message}, …]} with sizes in
    bytes and every default filled in, or {"valid": false, "problems": [{file, line, column, path, message},
    …]}.
    """
    if not as_json:
        _show(load(topology), topology)
        return
    try:
        fabric = load(topology)
        notes = [asdict(limit) for limit in limits(fabric)]
        answer = {"valid": True, "topology": json.loads(to_json(fabric)), "qemu": notes}
    except TopologyError as error:
        answer = {"valid": False, "problems": [asdict(problem) for problem in error.problems]}
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    ctx.exit(0 if answer["valid"] else TopologyError.exit_code)


def _show(topology: Topology, name: str) -> None:
    from softcxl.cli.show import print_tree

    print_tree(tree(topology, name))
    for limit in limits(topology):
        click.echo(limit)
