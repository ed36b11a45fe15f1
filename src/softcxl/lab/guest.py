"""A running guest: boot it, run commands in it, restart it, plug and unplug devices, and be rid of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from softcxl.lab import firmware, kvm, terminal
from softcxl.lab.agent import Agent, Task
from softcxl.lab.console import Console
from softcxl.lab.errors import (
    CommandFailed,
    CommandTimeout,
    GuestError,
    GuestGone,
    GuestPanic,
    GuestTimeout,
    GuestUnfit,
    LaunchError,
    MonitorError,
)
from softcxl.lab.initramfs import initramfs
from softcxl.lab.parts import Parts
from softcxl.lab.plan import Endpoint, GuestPlan
from softcxl.lab.process import Child
from softcxl.lab.progress import Progress, silent
from softcxl.lab.pump import Pump
from softcxl.lab.qemu import Lines, command_line, endpoint_devices
from softcxl.lab.qmp import Monitor
from softcxl.lab.qtest import Qtest
from softcxl.lab.switch_slots import SwitchSlots
from softcxl.lab.vmlinux import direct_image

BOOT_TIMEOUT = 180.0
_KILL_TRIES = 10
_ENDING = 30.0
"""Seconds that a QEMU which has closed a socket has to end."""
_PORTS = ("serial", "monitor", "control", "out", "err", "terminal")


@dataclass(frozen=True)
class Result:
    """How a command in the guest ended: its exit status and what it wrote. A status over 128 is 128 plus a signal."""

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode(errors="replace")


class Guest:
    """One virtual machine. Use it in a `with` statement, or call `start` and `close`.

    Its methods wait and may be called from any thread, one command at a time; never from inside a device's request
    handler, which the guest may be waiting for.
    """

    def __init__(
        self,
        plan: GuestPlan,
        parts: Parts,
        *,
        accelerate: bool | None = None,
        share: Path | None = None,
        overlays: Sequence[Path] = (),
        append: Sequence[str] = (),
        extra: Sequence[str] = (),
        console_log: Path | None = None,
        verbose: bool = False,
        boot_timeout: float = BOOT_TIMEOUT,
        progress: Progress = silent,
        serial: Path | None = None,
    ) -> None:
        """Describe a guest; nothing runs yet.

        `accelerate` chooses KVM or not, None takes KVM where a kernel has been seen to run under it. `share` is a
        folder that appears as /share; `overlays` are folders laid over the guest's root; `append` and `extra` are words
        for the kernel's and QEMU's command lines; `verbose` lets the kernel print everything. `serial` is a Unix socket
        at which the second serial port, /dev/ttyS1, connects.
        """
        self.plan, self.parts = plan, parts
        self._accelerate = accelerate
        self._share = share.absolute() if share is not None else None
        self._overlays, self._append, self._extra = tuple(overlays), tuple(append), tuple(extra)
        self._verbose, self._boot_timeout, self._progress = verbose, boot_timeout, progress
        self._serial = serial
        self._changed = threading.Condition()
        self._running = threading.Lock()
        self._open = contextlib.ExitStack()
        self._child: Child | None = None
        self._gone = False
        self.console = Console(self._changed, console_log)
        self.boot_seconds = 0.0
        """From launching QEMU to the agent's first word."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._started().pid

    @property
    def ended(self) -> bool:
        """QEMU has ended, or is about to, whoever has brought that about."""
        return self._gone or self.monitor.closed

    @property
    def release(self) -> str:
        """The running kernel's release."""
        return self.agent.release

    def start(self) -> None:
        """Boot, and return when commands can be run.

        Raises:
            PlanError, PartsError, FetchError: before anything is started.
            LaunchError: QEMU did not start.
            GuestError: the guest panicked, did not come up in time, or cannot do the work.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End QEMU, whatever it does, and drop everything that belonged to it. May be called again."""
        if self._child is not None and self._child.status is None:
            asked = False
            with contextlib.suppress(MonitorError, OSError):
                self.monitor.execute("quit", timeout=2.0)
                asked = True
            if not (asked and self._child.wait(2.0)):
                self._child.stop()
        self._open.close()
        self.console.close()

    def run(
        self,
        command: str,
        timeout: float = 120.0,
        *,
        given: bytes = b"",
        on_output: Callable[[int, bytes], None] | None = None,
    ) -> Result:
        """Run a shell command in the guest and wait for its end.

        `given` is its standard input, at most 64 MiB. `on_output` is called, from this thread, with 1 or 2 for standard
        output or error and the bytes, as they come.

        Raises:
            CommandTimeout: it took longer than `timeout` seconds and was killed.
            GuestTimeout: and the guest did not even do that.
            GuestPanic, GuestGone: what their names say; the command's fate is unknown.
        """
        with self._running:
            began = time.monotonic()
            self._await_agent("", self._boot_timeout)
            task = self._ask(lambda: self.agent.run(command, given))
            collected: tuple[list[bytes], list[bytes]] = ([], [])
            try:
                in_time = self._follow(task, began + timeout, collected, on_output)
            except KeyboardInterrupt:
                with contextlib.suppress(OSError):
                    self.agent.kill(task, "INT")
                raise
            if not in_time:
                ended = self._kill(task, collected, on_output)
                kind = CommandTimeout if ended else GuestTimeout
                outcome = "was killed" if ended else "could not be killed: the guest does not answer"
                raise kind(
                    f"{command!r} ran longer than {timeout:g} seconds and {outcome}.", self.console.tail()
                )
            assert task.status is not None, "followed to its end"
            out, err = (b"".join(chunks) for chunks in collected)
            return Result(task.status, out, err, time.monotonic() - began)

    def output(self, command: str, timeout: float = 120.0, *, given: bytes = b"") -> str:
        """The standard output, as text, of a command that must succeed. Raises CommandFailed, and what `run` raises."""
        result = self.run(command, timeout, given=given)
        if result.status != 0:
            said = result.stderr.decode(errors="replace").strip()
            raise CommandFailed(
                f"{command!r} ended with status {result.status}" + (f": {said}" if said else ".")
            )
        return result.text

    def shell(self, stdin: int = 0, stdout: int = 1) -> int:
        """An interactive shell on the guest's second console, for the user at `stdin` and `stdout`; its exit status.

        Ctrl-] leaves it from our side, with status 0. Raises GuestError if the guest ends meanwhile.
        """
        with self._running:
            self._await_agent("", self._boot_timeout)
            rows, columns = terminal.window_size(stdout)
            task = self._ask(lambda: self.agent.shell(rows, columns, os.environ.get("TERM", "dumb")))

            def done() -> bool:
                with self._changed:
                    self._check(task.boot)
                    return task.status is not None

            if not terminal.join(self.terminal, stdin, stdout, done, self.agent.resize):
                self._ask(lambda: self.agent.kill(task, "HUP"))
                return 0
            return task.status or 0

    def reboot(self, timeout: float | None = None) -> None:
        """Reset the machine, as its reset button would, and wait until commands can be run again. See `start`."""
        with self._running:
            self._progress("restarting the guest")
            old = self.agent.boot
            self.console.forget()
            if self.plan.decoders:
                self._restart_programmed()
            else:
                self.monitor.execute("system_reset")
            self._await_agent(old, timeout or self._boot_timeout)

    switch_slots: SwitchSlots
    """The slots of its switches' ports; there are none in a guest without switches."""

    def plug(self, endpoint: Endpoint, port: str) -> None:
        """Hot-add a device at the empty root or downstream port with that name. Raises MonitorError."""
        for device in endpoint_devices(endpoint, port):
            self.monitor.execute("device_add", **device)

    def unplug(self, name: str, timeout: float = 120.0) -> None:
        """Hot-remove the device with that name; returns when the guest has let go of it. Raises MonitorError."""
        since = len(self.monitor.events)
        self.monitor.execute("device_del", id=name)
        self.monitor.wait_event("DEVICE_DELETED", timeout, since, lambda data: data.get("device") == name)

    def wait_gone(self, timeout: float) -> bool:
        """Wait until QEMU has ended by itself, as after a power-off; False after `timeout` seconds."""
        return self._started().wait(timeout)

    def qemu_said(self) -> str:
        """What QEMU has written to its standard output and error."""
        # by position, because QEMU writes at the position this file shares with it
        return os.pread(self._output.fileno(), 1 << 20, 0).decode(errors="replace").strip()

    def _start(self) -> None:
        self.plan.check()
        initrd = self._initrd()
        kernel = replace(self.parts.kernel, image=direct_image(self.parts.kernel.image))
        use_kvm = kvm.works(self.parts, self._progress) if self._accelerate is None else self._accelerate
        ours: dict[str, socket.socket] = {}
        theirs: dict[str, socket.socket] = {}
        with contextlib.ExitStack() as handed:
            for name in (*_PORTS, *(("qtest",) if self.plan.decoders or self.plan.switched else ())):
                here, there = socket.socketpair()
                ours[name] = self._open.enter_context(here)
                theirs[name] = handed.enter_context(there)
            command = command_line(
                self.plan,
                self.parts.qemu,
                kernel,
                Path(f"/proc/self/fd/{initrd}"),
                Lines(**{name: end.fileno() for name, end in theirs.items()}),
                kvm=use_kvm,
                share=self._share,
                append=self._append,
                extra=self._extra,
                verbose=self._verbose,
                serial=self._serial,
            )
            self._connect(ours)
            self._progress(f"booting Linux {self.parts.kernel.release} under {'KVM' if use_kvm else 'TCG'}")
            began = time.monotonic()
            pieces = [piece.backing for window in self.plan.windows for piece in window.pieces]
            files = [one for one in pieces if isinstance(one, int)]
            self._output = self._open.enter_context(tempfile.TemporaryFile())
            self._child = Child(
                command,
                keep=[initrd, *files, *(end.fileno() for end in theirs.values())],
                output=self._output,
                environment=self.parts.qemu.environment,
                ended=self._on_end,
            )
        self._pump.start()
        try:
            self.monitor.negotiate()
            if self.plan.decoders:
                firmware.program(self._qtest, self.plan)
                self.monitor.execute("cont")
        except MonitorError as error:
            self._started().wait(2.0)
            raise LaunchError(f"QEMU did not start: {self.qemu_said() or error}") from error
        self._await_agent("", self._boot_timeout)
        self.boot_seconds = time.monotonic() - began

    def _connect(self, ours: dict[str, socket.socket]) -> None:
        self._pump = Pump(self.plan.name)
        self._open.callback(self._pump.close)
        self.monitor = Monitor(ours["monitor"], self._changed, self._on_event)
        self.agent = Agent(ours["control"], self._changed)
        self.terminal = ours["terminal"]
        self._pump.add(ours["serial"], self.console.feed)
        self._pump.add(ours["monitor"], self.monitor.feed)
        self._pump.add(ours["control"], self.agent.feed_control)
        self._pump.add(ours["out"], self.agent.feed_out)
        self._pump.add(ours["err"], self.agent.feed_err)
        if "qtest" in ours:
            self._qtest = Qtest(ours["qtest"])
            self.switch_slots = SwitchSlots(self.monitor, self._qtest)

    def _initrd(self) -> int:
        """A file in memory: the firmware tables, which must come first and uncompressed, then the initramfs."""
        base = initramfs(self.parts, self._overlays, self._progress)
        descriptor = os.memfd_create("initrd")
        self._open.callback(os.close, descriptor)
        with open(descriptor, "wb", closefd=False) as file, base.open("rb") as rest:
            file.write(firmware.tables(self.plan))
            shutil.copyfileobj(rest, file, 1 << 20)
        return descriptor

    def _await_agent(self, old: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        if not self._wait(lambda: self.agent.boot not in ("", old), deadline):
            raise GuestTimeout(f"The guest did not come up within {timeout:g} seconds.", self.console.tail())

    def _follow(
        self,
        task: Task,
        deadline: float,
        collected: tuple[list[bytes], list[bytes]],
        on_output: Callable[[int, bytes], None] | None,
    ) -> bool:
        """Collect a task's output until it is done; False if the deadline comes first."""
        while True:
            ready = self._wait(
                lambda: task.done or bool(task.out.chunks or task.err.chunks), deadline, task.boot
            )
            with self._changed:
                done = task.done
                pieces = (task.out.take(), task.err.take())
            for number, (piece, chunks) in enumerate(zip(pieces, collected, strict=True), 1):
                if piece:
                    chunks.append(piece)
                    if on_output is not None:
                        on_output(number, piece)
            if done:
                return True
            if not ready or time.monotonic() >= deadline:
                return False

    def _kill(
        self,
        task: Task,
        collected: tuple[list[bytes], list[bytes]],
        on_output: Callable[[int, bytes], None] | None,
    ) -> bool:
        """Kill a task; False if the guest does not report its end."""
        # more than once: the first may come before the guest has noted which process the task is
        for _ in range(_KILL_TRIES):
            self._ask(lambda: self.agent.kill(task))
            if self._follow(task, time.monotonic() + 1.0, collected, on_output):
                return True
        return False

    def _wait(self, condition: Callable[[], bool], deadline: float, boot: str | None = None) -> bool:
        """Wait for `condition`, False at the deadline; whatever befalls the guest meanwhile is raised."""
        with self._changed:
            while not condition():
                self._check(boot)
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                # a panic's report may stop in the middle, with nothing more to wake us
                self._changed.wait(min(remaining, 0.5) if self.console.panic else remaining)
            return True

    def _check(self, boot: str | None) -> None:
        console = self.console
        if console.panic is not None and console.panic_told():
            raise GuestPanic(f"The guest's kernel panicked: {console.panic}.", console.tail(60))
        if console.unfit is not None:
            raise GuestUnfit(f"The guest cannot be used: {console.unfit}.", console.tail(10))
        if self._gone:
            status = self._started().status
            how = "powered off" if status == 0 else f"was lost, QEMU ended with status {status}"
            said = self.qemu_said()
            raise GuestGone(f"The guest {how}." + (f" QEMU said: {said}" if said else ""), console.tail())
        if boot is not None and self.agent.boot != boot:
            raise GuestGone("The guest restarted by itself.", console.tail())

    def _ask(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except OSError as error:
            # QEMU that ends closes its sockets a moment before it is known how it has ended
            self._wait(lambda: False, time.monotonic() + _ENDING)
            raise GuestGone(f"The guest is gone: {error}.", self.console.tail()) from error

    def _on_event(self, name: str, details: dict[str, Any]) -> None:
        if name == "RESET":
            self.agent.forget()
        elif name == "SHUTDOWN" and self.plan.decoders:
            # only with programmed decoders does QEMU pause here: a restart must find them programmed again
            restart = details.get("reason") == "guest-reset"
            work = self._restart_programmed if restart else lambda: self.monitor.execute("quit")
            threading.Thread(
                target=self._quietly, args=(work,), name=f"restart {self.plan.name}", daemon=True
            ).start()

    def _quietly(self, work: Callable[[], Any]) -> None:
        with contextlib.suppress(GuestError, MonitorError):
            work()

    def _restart_programmed(self) -> None:
        since = len(self.monitor.events)
        self.monitor.execute("stop")
        self.monitor.execute("set-action", reboot="reset")
        self.monitor.execute("system_reset")
        self.monitor.wait_event("RESET", 10.0, since)
        self.monitor.execute("set-action", reboot="shutdown")
        firmware.program(self._qtest, self.plan)
        self.monitor.execute("cont")

    def _on_end(self) -> None:
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _started(self) -> Child:
        if self._child is None:
            raise LaunchError("The guest has not been started.")
        return self._child
