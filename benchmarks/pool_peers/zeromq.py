"""ZeroMQ over ipc: a REQ and a REP socket, as its guide has it."""

from __future__ import annotations

from pool_peers.peer import Missing, Peer

try:
    import zmq
except ImportError as error:
    raise Missing("pyzmq is not installed") from error


class ZeroMq(Peer):
    """REQ and REP; frames are taken without a copy where they are large, which pyzmq decides."""

    def prepare(self, folder: str) -> None:
        self.address = f"ipc://{folder}/socket"

    def listen(self) -> None:
        self.socket = zmq.Context().socket(zmq.REP)
        self.socket.bind(self.address)

    def connect(self) -> None:
        self.socket = zmq.Context().socket(zmq.REQ)
        self.socket.connect(self.address)

    def serve(self, count: int, size: int) -> None:
        receive, send = self.socket.recv, self.socket.send
        for _ in range(count):
            send(receive())

    def ask(self, request: bytes) -> int:
        self.socket.send(request)
        return len(self.socket.recv())

    def close(self) -> None:
        self.socket.close(0)
