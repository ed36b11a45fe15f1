"""Long work in a terminal: what is being done, how far it is, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from softcxl.lab.progress import Progress as Listener
from softcxl.lab.progress import silent


@contextmanager
def shown(quiet: bool = False) -> Iterator[Listener]:
    """A progress listener that draws on stderr: bars in a terminal, a line a step elsewhere, nothing if `quiet`.

    What it draws goes away at the end, so that a program's own output stands alone.
    """
    if quiet:
        yield silent
    elif sys.stderr.isatty():
        with _bars() as listener:
            yield listener
    else:
        yield _lines()


def _lines() -> Listener:
    said: set[str] = set()

    def listen(step: str, fraction: float | None = None, /) -> None:
        if step not in said:
            said.add(step)
            print(f"softcxl: {step}", file=sys.stderr, flush=True)

    return listen


@contextmanager
def _bars() -> Iterator[Listener]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        current: dict[str, TaskID] = {}

        def listen(step: str, fraction: float | None = None, /) -> None:
            if step not in current:
                for task in current.values():
                    progress.remove_task(task)
                current.clear()
                current[step] = progress.add_task(step, total=None)
            if fraction is not None:
                progress.update(current[step], total=1.0, completed=fraction)

        yield listen
