"""Where the commands of `softcxl fm` go, and how what comes back is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from softcxl import fm
from softcxl.cli.fm.parameters import LD, PORT

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Reach:
    """An endpoint, as the options ahead of a verb name it."""

    address: str | None
    dialect: fm.Dialect | None
    endpoint: int | str
    timeout: float

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[fm.Connection]:
        """A connection to the address."""
        if self.address is None:
            raise click.UsageError(
                "where is the endpoint? --at or SOFTCXL_FM says: tcp:HOST:PORT, or unix:PATH of a server"
            )
        async with fm.Connection.open(self.address, dialect=self.dialect, timeout=self.timeout) as connection:
            yield connection

    def connected(self, ask: Callable[[fm.Connection], Awaitable[T]]) -> T:
        """What is asked of a connection."""

        async def run() -> T:
            async with self.connection() as connection:
                return await ask(connection)

        return asyncio.run(run())

    def switch(self, ask: Callable[[fm.Switch], Awaitable[T]]) -> T:
        """What is asked of the switch there."""

        async def run(connection: fm.Connection) -> T:
            return await ask(await connection.endpoint(fm.Switch, self.eid(connection)))

        return self.connected(run)

    def device(self, target: Target, ask: Callable[[fm.Device], Awaitable[T]]) -> T:
        """What is asked of the device there, or of one behind it."""

        async def run(connection: fm.Connection) -> T:
            return await ask(await target.of(connection, self.eid(connection)))

        return self.connected(run)

    def eid(self, connection: fm.Connection) -> int:
        """The endpoint ID that is meant, by number or by name."""
        if isinstance(self.endpoint, int):
            return self.endpoint
        if self.endpoint not in connection.names:
            named = (
                ", ".join(connection.names) or "none: only a server of ours, unix:PATH, has names for them"
            )
            raise click.UsageError(
                f"there is no endpoint {self.endpoint!r} at {self.address}; there are {named}"
            )
        return connection.names[self.endpoint]


@dataclass(frozen=True, slots=True)
class Target:
    """Which component is meant: the endpoint, or one that its commands are tunnelled to."""

    port: int | None
    ld: int | None
    pool: bool

    async def of(self, connection: fm.Connection, eid: int) -> fm.Device:
        """The component."""
        if self.port is None:
            device = await connection.endpoint(fm.Device, eid)
        else:
            device = (await connection.endpoint(fm.Switch, eid)).port(self.port)
        if self.pool:
            device = device.pool
        return device if self.ld is None else device.ld(self.ld)

    @property
    def is_endpoint(self) -> bool:
        """Nothing is tunnelled."""
        return self.port is None and self.ld is None and not self.pool


def targeted(function: F) -> F:
    """The options `--port`, `--ld` and `--pool` of a verb, which it gets as `target`."""

    @wraps(function)
    def run(*arguments: Any, port: int | None, ld: int | None, pool: bool, **options: Any) -> Any:
        return function(*arguments, target=Target(port, ld, pool), **options)

    made = click.option(
        "--port", type=PORT, metavar="N", help="Of the device behind this physical port of the switch."
    )(run)
    made = click.option("--ld", type=LD, metavar="N", help="Of this logical device of the device.")(made)
    help_ = "Of the LD pool's command interface of the multi-headed device."
    return click.option("--pool", is_flag=True, help=help_)(made)  # type: ignore[return-value]
