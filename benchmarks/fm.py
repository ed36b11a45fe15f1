"""FM API commands a second over MCTP on TCP, beside a socket echo of the same bytes.

Identify Switch Device, the command that fabric managers ask most: a packet to the switch, two back. The peer is the
least that any server does: it reads a request's bytes and sends a ready-made answer, without MCTP, checks or a switch.
Both servers are processes of their own, on a core that is not the client's where there are two, take turns in the same
run, and are asked by the same client, bare sockets that look at nothing but the number of bytes. Figures are medians.

    python benchmarks/fm.py [--json] [--rounds N] [--seconds S]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import select
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

from softcxl.device.type3 import Type3
from softcxl.spec.command.events import EVENT_NOTIFICATION
from softcxl.spec.fm.switch import IDENTIFY_SWITCH_DEVICE, IdentifySwitchDeviceResponse
from softcxl.spec.mctp.packet import MessageType
from softcxl.switch.physical import PhysicalSwitch
from softcxl.transport.mctp import Dialect, Endpoint, MctpClient, MctpTcpDoor, Open
from softcxl.transport.mctp.cci import pack_request
from softcxl.transport.mctp.packet import Fragmenter, Message

PIPELINED = 8
CONNECTIONS = 64
PACKETS = Fragmenter(padded=True)


def request(tag: int) -> bytes:
    """Identify Switch Device, as one packet."""
    body = pack_request(Dialect.STANDARD, MessageType.CXL_FM_API, tag, IDENTIFY_SWITCH_DEVICE.opcode, b"")
    return b"".join(PACKETS.cut(Message(0, 0, tag, True, body)))


REQUESTS = [request(tag) for tag in range(PIPELINED)]
REQUEST = REQUESTS[0]
ANSWER = 2 * len(REQUEST)


def open_switch() -> Open:
    """A switch of 32 ports and four virtual switches, half of whose 64 vPPBs are bound to devices."""
    switch = PhysicalSwitch("rack", ports=32, virtual=[(f"host{n}", 16) for n in range(4)], serial=1)
    for port in range(32):
        switch.ports[port].insert(Type3(f"mem{port}", volatile=256 << 20, serial=port))
        switch.bind(port % 4, port // 4, port)
    return lambda send: switch.management(
        lambda notification: send(EVENT_NOTIFICATION.opcode, notification.pack())
    )


def serve(pipe: Any) -> None:
    """Our server."""
    with MctpTcpDoor({8: Endpoint("switch", open_switch())}, port=0) as door:
        pipe.send(door.address)
        pipe.recv()


def echo(pipe: Any) -> None:
    """The peer: whatever arrives is answered by twice as many bytes."""
    answer = bytes(ANSWER)
    listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(pipe.fileno(), select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    pipe.send(listener.getsockname())
    while True:
        for fd, _ in poll.poll():
            client = clients.get(fd)
            if client is not None:
                try:
                    data = client.recv(1 << 16)
                except ConnectionError:
                    data = b""
                if data:
                    client.sendall(answer * (len(data) // len(REQUEST)))
                else:
                    poll.unregister(fd)
                    clients.pop(fd).close()
            elif fd == pipe.fileno():
                return
            else:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)


class Server:
    """A server in a process of its own."""

    def __init__(self, target: Callable[[Any], None], core: int | None) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs,))
        self._process.start()
        if core is not None and self._process.pid is not None:
            os.sched_setaffinity(self._process.pid, {core})
        self.address: tuple[str, int] = self._pipe.recv()

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join(30)


def take(client: socket.socket, size: int) -> None:
    while size:
        data = client.recv(size)
        if not data:
            raise SystemExit("the server has gone")
        size -= len(data)


def one_outstanding(server: Server, seconds: float) -> float:
    """Commands a second over one connection, one after the other."""
    with server.connect() as client:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            for _ in range(50):
                client.send(REQUEST)
                take(client, ANSWER)
            count += 50
        return count / (time.perf_counter() - start)


def pipelined(server: Server, seconds: float) -> float:
    """Commands a second over one connection, eight at a time, as many as MCTP has tags."""
    requests = b"".join(REQUESTS)
    with server.connect() as client:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            client.send(requests)
            take(client, ANSWER * PIPELINED)
            count += PIPELINED
        return count / (time.perf_counter() - start)


def many(server: Server, seconds: float) -> float:
    """Commands a second over 64 connections, each with one outstanding."""
    clients = [server.connect() for _ in range(CONNECTIONS)]
    poll = select.epoll()
    by_fd = {client.fileno(): client for client in clients}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    count, start = 0, time.perf_counter()
    for client in clients:
        client.send(REQUEST)
    while time.perf_counter() - start < seconds:
        for fd, _ in poll.poll():
            take(by_fd[fd], ANSWER)
            by_fd[fd].send(REQUEST)
            count += 1
    spent = time.perf_counter() - start
    for client in clients:
        take(client, ANSWER)
        client.close()
    poll.close()
    return count / spent


def connecting(server: Server, seconds: float) -> float:
    """Commands a second, each over a connection of its own, as jack has it."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        with server.connect() as client:
            client.send(REQUEST)
            take(client, ANSWER)
        count += 1
    return count / (time.perf_counter() - start)


def our_client(server: Server, seconds: float) -> float:
    """Commands a second of `MctpClient`, one after the other, each checked and parsed."""

    async def work() -> float:
        async with await MctpClient.connect(*server.address) as client:
            count, start = 0, time.perf_counter()
            while time.perf_counter() - start < seconds:
                answer = await client.command(IDENTIFY_SWITCH_DEVICE.opcode)
                IdentifySwitchDeviceResponse.unpack(answer.payload)
                count += 1
            return count / (time.perf_counter() - start)

    return asyncio.run(work())


ROWS = (
    ("one connection, one outstanding", one_outstanding),
    (f"one connection, {PIPELINED} outstanding", pipelined),
    (f"{CONNECTIONS} connections, one outstanding each", many),
    ("a connection for each command", connecting),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a round of a row")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    ours, peer = (Server(target, cores[1] if len(cores) > 1 else None) for target in (serve, echo))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[0]})
    results: list[dict[str, float | str]] = []
    for name, measure in ROWS:
        pairs = [
            (measure(ours, options.seconds), measure(peer, options.seconds)) for _ in range(options.rounds)
        ]
        results.append(
            {
                "row": name,
                "commands a second": statistics.median(mine for mine, _ in pairs),
                "echo": statistics.median(theirs for _, theirs in pairs),
                "ratio": statistics.median(mine / theirs for mine, theirs in pairs),
            }
        )
    rates = [our_client(ours, options.seconds) for _ in range(options.rounds)]
    echo_rate = float(results[0]["echo"])
    rate = statistics.median(rates)
    results.append(
        {
            "row": "MctpClient, one outstanding",
            "commands a second": rate,
            "echo": echo_rate,
            "ratio": rate / echo_rate,
        }
    )
    ours.close()
    peer.close()
    if options.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'':<42}{'commands/s':>12}{'echo/s':>10}{'ratio':>8}")
    for row in results:
        print(f"{row['row']:<42}{row['commands a second']:>12,.0f}{row['echo']:>10,.0f}{row['ratio']:>8.2f}")


if __name__ == "__main__":
    main()
