"""`softcxl serve`: a fabric that stays, with a control socket; and `softcxl doors`, by which guests come to it."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import click

import softcxl
from softcxl.cli.booted import perform
from softcxl.cli.notify import notify
from softcxl.cli.options import HOST, JSON
from softcxl.cli.serve_grants import leases_of
from softcxl.cli.serve_pool import serve_pool
from softcxl.cli.verbs import VERBS, Doors
from softcxl.fabric.build import Fabric
from softcxl.fabric.control import Service, socket_of
from softcxl.fabric.endpoints import endpoints
from softcxl.fabric.errors import BuildError
from softcxl.fabric.hosts import Call, Hosts
from softcxl.fm.address import TcpAddress, parse
from softcxl.fm.errors import AddressError
from softcxl.lab.runtime import runtime_folder
from softcxl.pool.address import place
from softcxl.transport.control import Door
from softcxl.transport.errors import DoorError, DoorInUse
from softcxl.transport.mctp import Dialect, MctpKernelDoor, MctpTcpDoor

_LOCAL = TcpAddress("127.0.0.1", 0)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _path(ctx: click.Context, param: click.Parameter, given: str | None) -> Path | None:
    if given is None:
        return None
    path = socket_of(given)
    if not path:
        raise click.BadParameter(f"{given!r} is no address; it has the form unix:PATH")
    return Path(path).absolute()


def _pooled(ctx: click.Context, param: click.Parameter, given: str | None) -> Path | Literal["none"] | None:
    return "none" if given == "none" else _path(ctx, param, given)


def _managed(
    ctx: click.Context, param: click.Parameter, given: str | None
) -> TcpAddress | Literal["none"] | None:
    if given is None or given == "none":
        return given  # type: ignore[return-value]
    try:
        address = parse(given, least_port=0)
    except AddressError as error:
        raise click.BadParameter(str(error)) from error
    if not isinstance(address, TcpAddress):
        raise click.BadParameter(f"{given!r}: fabric managers come in by TCP; it has the form tcp:HOST:PORT")
    return address


@click.command()
@click.argument("topology", type=click.Path())
@click.option(
    "--socket", callback=_path, metavar="unix:PATH", help="Where to listen; without it a place of our own."
)
@click.option(
    "--host",
    "booted",
    multiple=True,
    metavar="NAME",
    help="Boot this host in this process at once, and not when it is first asked for.",
)
@click.option(
    "--fm",
    "managed",
    callback=_managed,
    metavar="tcp:HOST:PORT|none",
    help="Where fabric managers come in, by MCTP over TCP (port 0: any that is free), or that they do not; without it "
    "at a free port of this machine's own, 127.0.0.1, if the topology has something for them to do.",
)
@click.option(
    "--fm-dialect",
    "dialect",
    type=click.Choice([one.value for one in Dialect]),
    default=Dialect.STANDARD.value,
    show_default=True,
    help="How headers of commands are laid out: as the standard has it, or as tools of CXL 2.0's time do.",
)
@click.option(
    "--fm-kernel",
    is_flag=True,
    help="Have fabric managers come in by the MCTP stack of this machine's kernel, too (AF_MCTP).",
)
@click.option(
    "--pool",
    "pooled",
    callback=_pooled,
    metavar="unix:PATH|none",
    help="Where programs come to the topology's pool, or that none is served; without it beside the other socket.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the line that says it is ready as JSON.")
def serve(
    topology: str,
    socket: Path | None,
    booted: tuple[str, ...],
    managed: TcpAddress | Literal["none"] | None,
    dialect: str,
    fm_kernel: bool,
    pooled: Path | Literal["none"] | None,
    as_json: bool,
) -> None:
    """Keep the fabric of TOPOLOGY live, and serve it at a control socket.

    The line that it prints once it is ready ends with the server's address. Commands that take TOPOLOGY|unix:PATH act
    on the live fabric then: what one does the next finds. A host is driven in this process, from when it is first
    asked for, or by a guest (`softcxl vm run unix:PATH`, `softcxl doors`).

    Fabric managers bind and unbind what hosts of a shared switch see, by MCTP over TCP: the line says where, and
    `softcxl fm` asks the server itself. Whoever reaches that port can do so; by default users of this machine alone.

    Where the topology has a `pool`, programs come to it at a socket of its own, beside the other one and as private:
    the line says where, and `softcxl.connect` and `softcxl pool` find it by themselves where one server runs. What is
    in it outlives a server that is killed.

    The socket is for its owner alone (mode 0600): $XDG_RUNTIME_DIR/softcxl-NAME.sock for the file NAME.yaml, or
    /tmp/softcxl-UID/softcxl-NAME.sock where there is no such directory. SIGTERM, SIGINT and SIGHUP end it in order,
    with status 0: persistent memory is saved, and the sockets go. It tells systemd (NOTIFY_SOCKET) when it is ready
    and when it stops.
    """
    with _until_signalled() as wait, ExitStack() as stack:
        folder = stack.enter_context(runtime_folder())
        fabric = stack.enter_context(Fabric.load(topology, serves=pooled != "none"))
        hosts = Hosts(fabric, topology, folder)
        stack.enter_context(closing(hosts))
        for name in [hosts.host(one) for one in booted]:
            hosts.perform(_Boot(), name, _nowhere, lambda text: click.echo(text, nl=False, err=True))
        path = socket or _default(topology, folder)
        # before any guest can come: what the pool has is in the guest's machine from its beginning
        granting = managed != "none" and any(live.virtual for live in fabric.hosts.values())
        leases, pool = leases_of(hosts) if granting else None, None
        if fabric.pool_files is not None:
            place = path.with_suffix(".pool") if pooled is None or pooled == "none" else pooled
            pool = stack.enter_context(serve_pool(fabric, place, leases))
        elif isinstance(pooled, Path):
            raise BuildError(f"--pool unix:{pooled}: the topology has no `pool`")
        try:
            stack.enter_context(Door(Service(hosts, VERBS), path))
        except DoorInUse as error:
            raise BuildError(f"{error}; --socket names another place") from error
        except DoorError as error:
            raise BuildError(str(error)) from error
        told = ""
        if pool:
            told = f" for programs at {pool}, and"
        if fm_kernel:
            _kernel_door(stack, hosts.fabric, Dialect(dialect))
        if managed != "none" and (managed or hosts.fabric.switches or hosts.fabric.mlds):
            hosts.manager = stack.enter_context(_fm_door(hosts.fabric, managed or _LOCAL, Dialect(dialect)))
            told = f"{told.removesuffix(' and')} for fabric managers at {hosts.manager['address']}, and"
        if pool and leases:
            hosts.leases = stack.enter_context(leases)
        address = f"unix:{path}"
        if as_json:
            ready = {
                "address": address,
                "topology": topology,
                "hosts": list(hosts.fabric.hosts),
                "fm": hosts.manager.get("address"),
                "pool": pool,
                "pid": os.getpid(),
                "softcxl": softcxl.__version__,
            }
            click.echo(json.dumps(ready))
        else:
            click.echo(f"serving {topology}{told} at {address}")
        notify("READY=1", f"STATUS=serving {topology} at {address}")
        wait()
        notify("STOPPING=1")


@contextmanager
def _fm_door(fabric: Fabric, at: TcpAddress, dialect: Dialect) -> Iterator[dict[str, Any]]:
    """Open the door of fabric managers; yields what the server tells of it."""
    served = endpoints(fabric)
    if not served:
        raise BuildError(f"--fm {at}: the topology has neither switches nor devices")
    try:
        with MctpTcpDoor(served, at.host, at.port, dialect=dialect) as door:
            yield {
                "address": str(TcpAddress(door.address[0], door.address[1])),
                "dialect": dialect.value,
                "endpoints": {str(number): one.name for number, one in served.items()},
            }
    except DoorInUse as error:
        raise BuildError(f"{error}; --fm names another place") from error
    except DoorError as error:
        raise BuildError(str(error)) from error


def _kernel_door(stack: ExitStack, fabric: Fabric, dialect: Dialect) -> None:
    """Open a door for fabric managers in the kernel's MCTP stack."""
    served = endpoints(fabric)
    if not served:
        raise BuildError("--fm-kernel: the topology has neither switches nor devices")
    try:
        stack.enter_context(MctpKernelDoor(served, dialect=dialect))
    except DoorError as error:
        raise BuildError(f"--fm-kernel: {error}") from error


class _Boot:
    """Boot a host, and do no more."""

    def perform(self, call: Call) -> None:
        assert call.system is not None


def _nowhere(text: str | bytes) -> None:
    pass


def _default(topology: str, folder: Path) -> Path:
    """Where the socket is if nobody says: a name that is the same the next time, if there is a place for it."""
    where = place(make=True)
    return folder / "control.sock" if where is None else where / f"softcxl-{Path(topology).stem}.sock"


@contextmanager
def _until_signalled() -> Iterator[Callable[[], None]]:
    """Yields what waits for a signal that ends a server; one that comes earlier is not lost, a second one ends it
    as it ends any program. One that was ignored when the program began stays so (nohup)."""
    # A handler alone would be run by the main thread when it next has a turn, which one that sleeps has not.
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {one: signal.getsignal(one) for one in _ENDING}
    before = {one: handler for one, handler in before.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    def wait() -> None:
        poll = select.poll()
        poll.register(woken, select.POLLIN)
        poll.poll()

    for one in before:
        signal.signal(one, lambda number, frame: restore())
    outer = signal.set_wakeup_fd(wake)
    try:
        yield wait
    finally:
        restore()
        signal.set_wakeup_fd(outer)
        os.close(wake)
        os.close(woken)


@click.command()
@click.argument("address", metavar="unix:PATH")
@click.option("--close", is_flag=True, help="Close them; a guest that is there loses its devices.")
@JSON
@HOST
def doors(address: str, close: bool, as_json: bool, host_name: str | None) -> None:
    """Open the doors by which a guest comes to the devices of a server's host, and print them as JSON.

    Of each device: `socket`, for QEMU's vfio-user-pci, whether somebody is `connected`, and the traffic so far. Of each
    window: `base` and `size` in bytes, and the `file` that its memory is mapped from, or where the window shows the
    pool's memory its `pieces`, each with `offset` and `size`, its `file` and where it `start`s there. Of each of its
    `virtual` switches: what is bound to each vPPB, which is among the devices. `opened` says whether they were closed
    before. A host that was asked for otherwise is driven in the server, and has no doors. Doors stay open until
    --close; what it prints is JSON, with and without --json.
    """
    if socket_of(address) is None:
        raise click.UsageError(f"{address!r} is no address of a server; it has the form unix:PATH")
    perform(address, host_name, Doors(close))
