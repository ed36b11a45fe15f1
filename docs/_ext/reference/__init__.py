"""The generated half of the reference: Markdown pages made from the code itself.

A page is a function without arguments that returns Markdown; PAGES names them all. `tests/docs` calls the same
functions, so what is missing there is missing here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from reference import api, commandline, commands, declarations, scenario, topology

PAGES: dict[str, Callable[[], str]] = {
    "command-line": commandline.page,
    "topology-keys": topology.page,
    "scenario-keys": scenario.page,
    "python": api.page,
    "commands": commands.page,
    **declarations.pages(),
}


def write(folder: Path) -> None:
    """Every page as a file in `folder`; one that has not changed is left alone, so that Sphinx skips it too."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{name}.md": make() for name, make in PAGES.items()}
    for stale in set(folder.glob("*.md")) - {folder / name for name in texts}:
        stale.unlink()
    for name, text in texts.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "reference" / "generated"))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
