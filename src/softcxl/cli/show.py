"""How things look in a terminal."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

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


def console() -> Console:
    """A console on stdout that shows text as it is: no emoji names, no colours of its own making."""
    # rich takes 80 columns where there is no terminal, and cuts a tree there: what is piped gets room for any line.
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)
