"""How things look in a terminal."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from softcxl.cli.tables import console
from softcxl.fabric.tree import Node

_STYLES = {
    "fabric": "bold",
    "host": "bold cyan",
    "bridge": "cyan",
    "switch": "magenta",
    "virtual switch": "magenta",
    "upstream": "dim",
    "device": "bold green",
    "empty": "dim",
    "window": "yellow",
    "region": "yellow",
    "spare": "dim",
}


def rich_tree(node: Node) -> Tree:
    """The fabric for a terminal: the lines of `node.lines()`, in colour where there is any."""
    label = Text(node.title, _STYLES[node.kind])
    if node.facts:
        label.append(f": {node.facts}", "default not bold")
    branch = Tree(label, guide_style="dim")
    branch.children.extend(rich_tree(child) for child in node.children)
    return branch


def print_tree(node: Node) -> None:
    """Print the fabric to stdout. A line longer than the terminal is folded, never cut."""
    console().print(rich_tree(node))
