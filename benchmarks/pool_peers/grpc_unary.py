"""gRPC over a Unix socket: a unary call of bytes, without protocol buffers' cost."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from pool_peers.peer import LARGEST, Missing, Peer

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
try:
    import grpc
except ImportError as error:
    raise Missing("grpcio is not installed") from error

OPTIONS = [(f"grpc.max_{way}_message_length", 2 * LARGEST) for way in ("send", "receive")]


class Grpc(Peer):
    """The synchronous API, one worker thread."""

    def prepare(self, folder: str) -> None:
        self.address = f"unix:{folder}/socket"

    def listen(self) -> None:
        handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        self.server = grpc.server(ThreadPoolExecutor(1), options=OPTIONS)
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("Echo", {"Ask": handler}),)
        )
        self.server.add_insecure_port(self.address)
        self.server.start()

    def connect(self) -> None:
        self.channel = grpc.insecure_channel(self.address, options=OPTIONS)
        self.call = self.channel.unary_unary("/Echo/Ask")

    def serve(self, count: int, size: int) -> None:
        """Its own threads do."""

    def ask(self, request: bytes) -> int:
        return len(self.call(request, wait_for_ready=True))

    def close(self) -> None:
        self.channel.close()
