"""The program `softcxl`, and `python -m softcxl`: the command line of `softcxl.cli`, from its first moment on.

Reading in a command line takes longer than it takes to think better of it: Ctrl-C ends that, too, with a sentence and
the status 130, and never with a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130


def main() -> int:
    """Run the command line; returns its exit status."""
    before = signal.getsignal(signal.SIGINT)
    # Who was started to ignore it goes on to do so
    if before is signal.default_int_handler:
        # No exception: whatever is being imported may make another one of it, or print it and go on
        signal.signal(signal.SIGINT, _interrupted)
    from softcxl.cli import main as command

    try:
        signal.signal(signal.SIGINT, before)
        return command()
    except KeyboardInterrupt:
        _interrupted()


def _interrupted(*_: object) -> NoReturn:
    os.write(2, b"softcxl: interrupted\n")
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
