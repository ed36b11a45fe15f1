"""A child process that never outlives us, however we end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from softcxl.lab.errors import LaunchError

# Runs between fork and exec, as a program of its own because Python must not run there beside threads: asks to be
# killed with its parent (1 is PR_SET_PDEATHSIG), looks whether that is not too late already, and becomes the command.
_LEASH = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    print(f"{sys.argv[2]} cannot be started: {error.strerror}", flush=True)
    os._exit(127)
"""


class Child:
    """A running program with its output in a file.

    The kernel is asked to kill the child when its parent dies (prctl(2), PR_SET_PDEATHSIG), and by parent it means
    the *thread* that started it. So a thread of its own starts the child and stays until the child has ended.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        keep: Sequence[int] = (),
        output: IO[bytes],
        environment: Mapping[str, str] | None = None,
        ended: Callable[[], None],
    ) -> None:
        """Start `command` with the file descriptors `keep`; `ended` is called from another thread when it is over.

        A program that is not there ends with status 127 and says so in its output.

        Raises:
            LaunchError: no process can be started.
        """
        self._command = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command]
        self._keep = tuple(keep)
        self._output = output
        self._environment = {**os.environ, **(environment or {})}
        self._ended = ended
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: list[OSError] = []
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._live, args=(started,), name=f"child {command[0]}", daemon=True
        )
        self._thread.start()
        started.wait()
        if self._failure:
            self._thread.join()
            raise LaunchError(f"No process can be started for {command[0]}: {self._failure[0].strerror}.")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._alive().pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal, None while it runs."""
        return self._alive().poll()

    def wait(self, timeout: float) -> bool:
        """Wait for the end; False if it has not come after `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def stop(self, grace: float = 2.0) -> None:
        """End it: SIGTERM, and SIGKILL after `grace` seconds. Returns when it is gone."""
        process = self._alive()
        process.terminate()
        if not self.wait(grace):
            process.kill()
            self._thread.join()

    def _alive(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "a Child whose program did not start is not constructed"
        return self._process

    def _live(self, started: threading.Event) -> None:
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                pass_fds=self._keep,
                env=self._environment,
                # a Ctrl-C in the terminal is for us; we then end the child in order
                start_new_session=True,
            )
        except OSError as error:
            self._failure.append(error)
            return
        finally:
            started.set()
        self._process.wait()
        self._ended()
