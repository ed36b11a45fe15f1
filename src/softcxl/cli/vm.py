"""`softcxl vm`: a guest over a fabric."""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self

import click

from softcxl.cli import verbs
from softcxl.cli.booted import demand
from softcxl.cli.inject import print_report
from softcxl.cli.options import TOPOLOGY
from softcxl.cli.work import orderly, shown
from softcxl.fabric.build import Fabric
from softcxl.fabric.control import Answer, Session, ask, socket_of
from softcxl.fabric.errors import BuildError, ControlError
from softcxl.fabric.hosts import traffic
from softcxl.fabric.scenario import load
from softcxl.fabric.topology import loads
from softcxl.fabric.visitor import Order
from softcxl.lab.beside import Beside
from softcxl.lab.boot import boot, bootable
from softcxl.lab.guest import BOOT_TIMEOUT, Guest, Result
from softcxl.lab.setup import setup
from softcxl.lab.visit import visit

_FOREVER = 1e8
_ACCELERATORS = {"auto": None, "kvm": True, "tcg": False}


@click.group()
def vm() -> None:
    """Virtual machines whose CXL devices are served by this program."""


@vm.command(context_settings={"ignore_unknown_options": False})
@TOPOLOGY
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--host", metavar="NAME", help="Which host of the topology to boot; needed where it has several."
)
@click.option("--kernel", type=click.Path(path_type=Path), metavar="BZIMAGE", help="Your own kernel image.")
@click.option(
    "--arch",
    type=click.Choice(["x86_64"]),
    default="x86_64",
    show_default=True,
    help="The guest's processor.",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="For COMMAND, in seconds."
)
@click.option(
    "--boot-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=BOOT_TIMEOUT,
    show_default=True,
    metavar="S",
    help="For the boot, in seconds.",
)
@click.option(
    "--overlay", type=click.Path(path_type=Path), multiple=True, metavar="DIR", help="Laid over its root."
)
@click.option(
    "--append", multiple=True, metavar="ARGS", help="More words for the kernel's command line, as they are."
)
@click.option(
    "--qemu",
    "extra",
    multiple=True,
    metavar="ARGS",
    help="More words for QEMU's command line, quoted as for a shell.",
)
@click.option(
    "--share", type=click.Path(path_type=Path), metavar="DIR", help="A folder that is /share in the guest."
)
@click.option(
    "--accelerator",
    type=click.Choice(list(_ACCELERATORS)),
    default="auto",
    show_default=True,
    help="KVM is taken where a stock kernel has been seen to run under it.",
)
@click.option(
    "--console", type=click.Path(path_type=Path), metavar="FILE", help="Keep what the guest's console shows."
)
@click.option(
    "--scenario",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Play a scenario file beside COMMAND, from when the guest is ready.",
)
@click.option(
    "--mctp-serial",
    is_flag=True,
    help="Make /dev/ttyS1 of the guest a serial line to the fabric's MCTP endpoints.",
)
@click.option(
    "--python", is_flag=True, help="Have Python in the guest, with what reaches the pool; fetched once."
)
@click.option("--verbose", "-v", is_flag=True, help="Let the kernel print everything to its console.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON when the command has ended.")
@click.pass_context
def run(
    ctx: click.Context,
    topology: str,
    command: tuple[str, ...],
    host: str | None,
    kernel: Path | None,
    arch: str,
    timeout: float | None,
    boot_timeout: float,
    overlay: tuple[Path, ...],
    append: tuple[str, ...],
    extra: tuple[str, ...],
    share: Path | None,
    accelerator: str,
    console: Path | None,
    scenario: Path | None,
    mctp_serial: bool,
    python: bool,
    verbose: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Boot the fabric in the file TOPOLOGY and run COMMAND in the guest, or a shell without one.

    A single word of COMMAND is given to the guest's shell as it is, so that pipes work; several are quoted.
    Its output is passed through, and its exit status is this program's. With --json one object is printed at
    the end: status, stdout, stderr, seconds, boot_seconds, kernel, and each device's traffic; output that is
    not UTF-8 is given in base64, as stdout_base64 or stderr_base64.

    With --scenario what the file says happens to the devices meanwhile; its lines for the guest's shell come when
    COMMAND has ended. Without a COMMAND only the scenario is played. Its report is on stderr, or with --json in
    `scenario`, and the status is 1 where an expectation was not met, else COMMAND's.

    Given the address of a server (`softcxl serve`) the guest is a host of its fabric, which stays when the guest goes.
    What a fabric manager binds to the host's virtual switches meanwhile is plugged into the guest, and what it unbinds
    is unplugged.

    A guest that panics, hangs or runs out of time ends it with status 1 and the tail of its console.
    """
    if as_json and not command and scenario is None:
        raise click.UsageError("--json needs a COMMAND or a --scenario: a shell has no result.")
    if scenario is not None and socket_of(topology) is not None:
        raise click.UsageError(f"--scenario acts on a fabric of its own, and {topology} is a server's")
    with orderly(), contextlib.ExitStack() as stack:
        with shown(quiet) as progress:
            options: dict[str, Any] = {
                "accelerate": _ACCELERATORS[accelerator],
                "share": share,
                "overlays": overlay,
                "append": append,
                "extra": [word for one in extra for word in shlex.split(one)],
                "console_log": console,
                "verbose": verbose,
                "boot_timeout": boot_timeout,
                "progress": progress,
                "mctp_serial": mctp_serial,
                "python": python,
            }
            played = None
            if socket_of(topology) is None:
                fabric = stack.enter_context(Fabric.load(topology))
                host = bootable(fabric.topology, host)
                if scenario is not None:
                    played = stack.enter_context(Beside(fabric, load(scenario, fabric.topology)))
                parts = setup(progress, kernel).parts()
                guest: Guest = stack.enter_context(boot(fabric, host, parts=parts, **options))
                doors: Callable[[], dict[str, Any]] = partial(_traffic, fabric)
            else:
                live = loads(json.dumps(demand(topology, None, verbs.Topology())), topology)
                host = bootable(live, host)
                parts = setup(progress, kernel).parts()
                doors = stack.enter_context(_doors(topology, host))
                told = doors()
                orders = stack.enter_context(_Orders(topology, host, bool(told["virtual"])))
                guest = stack.enter_context(visit(live, told, parts, orders, **options))
        if played is not None:
            played.start(guest)
        result = None
        if command:
            line = command[0] if len(command) == 1 else shlex.join(command)
            result = guest.run(line, timeout or _FOREVER, on_output=None if as_json else _pass_on)
        status = result.status if result is not None else guest.shell() if played is None else 0
        report = None if played is None else played.finish()
        if as_json:
            answer = _plain(result, guest, doors())
            click.echo(json.dumps(answer | ({"scenario": report.plain()} if report else {}), indent=2))
        elif report is not None:
            print_report(report, err=True)
    ctx.exit(status if report is None or report.passed else 1)


def _pass_on(stream: int, data: bytes) -> None:
    out = sys.stdout if stream == 1 else sys.stderr
    out.buffer.write(data)
    out.flush()


def _plain(result: Result | None, guest: Guest, doors: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    if result is not None:
        answer["status"] = result.status
        for name, data in (("stdout", result.stdout), ("stderr", result.stderr)):
            try:
                answer[name] = data.decode()
            except UnicodeDecodeError:
                answer[f"{name}_base64"] = base64.b64encode(data).decode()
        answer["seconds"] = round(result.seconds, 3)
    answer |= {
        "boot_seconds": round(guest.boot_seconds, 3),
        "kernel": guest.release,
        "traffic": {name: door["traffic"] for name, door in doors["devices"].items()},
    }
    return answer


def _traffic(fabric: Fabric) -> dict[str, Any]:
    """What has gone through the doors of this process, as a server tells of its own."""
    return {"devices": {name: {"traffic": traffic(door)} for name, door in fabric.open_doors.items()}}


class _Orders:
    """What a server has for its guest to do. The connection says that the guest is there; one that is not `shared` has
    nothing that changes, and needs none."""

    def __init__(self, address: str, host: str, shared: bool) -> None:
        self._address, self._host = address, host
        self._session = Session(address) if shared else None
        self._stopped = False
        self._first: list[Order] = []
        self._reporting = threading.Lock()

    def __enter__(self) -> Self:
        if self._session is not None:
            answer = self._session.ask("visit", verbs.Visit(wait=False), self._host)
            if answer.status:
                raise BuildError(answer.stderr.strip().removeprefix("softcxl: "))
            self._first = _read(answer)
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            self._session.__exit__()

    def take(self) -> list[Order] | None:
        if self._stopped or self._session is None:
            return None
        if self._first:
            first, self._first = self._first, []
            return first
        try:
            answer = self._session.ask("visit", verbs.Visit(), self._host)
        except ControlError:
            return None  # it has gone; its devices are dead, which the guest has seen for itself
        return None if answer.status else _read(answer)

    def told(self, number: int, problem: str) -> None:
        with self._reporting, contextlib.suppress(ControlError):
            ask(self._address, "visit", verbs.Visit(done=((number, problem),), comes=False), self._host)

    def stop(self) -> None:
        self._stopped = True
        if self._session is not None:
            self._session.shut()


def _read(answer: Answer) -> list[Order]:
    return [
        Order(**one | {"header": tuple(one["header"]), "functions": tuple(one["functions"])})
        for one in json.loads(answer.said)["orders"]
    ]


@contextlib.contextmanager
def _doors(address: str, host: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """The doors of a server's host, open; yields what tells of them. In the end they are as they were."""
    first = demand(address, host, verbs.Doors())
    try:
        for name, door in first["devices"].items():
            if door["connected"]:
                raise BuildError(f"devices.{name}: a guest has it, through {door['socket']}")
        yield lambda: demand(address, host, verbs.Doors(begins=True))
    finally:
        if first["opened"]:
            ask(address, "doors", verbs.Doors(close=True), host)
