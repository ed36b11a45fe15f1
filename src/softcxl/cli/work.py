"""Long work in a terminal: what is being done, how far it is, on stderr; and its end in order."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from softcxl.lab.progress import Progress as Listener
from softcxl.lab.progress import silent

_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def orderly() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as Ctrl-C does, with everything that it has open closed.

    Its status is then 128 and the signal's number. One that was ignored when the program began stays so (nohup).
    """

    def end(number: int, frame: FrameType | None) -> None:
        for one in _ENDING:
            signal.signal(one, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {one: signal.getsignal(one) for one in _ENDING}
    for one, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, end)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


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
