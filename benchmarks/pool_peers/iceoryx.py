"""iceoryx2: request and response by shared memory, polled, which is the fastest it has."""

from __future__ import annotations

import ctypes
import os

from pool_peers.peer import LARGEST, Missing, Peer

try:
    import iceoryx2
except ImportError as error:
    raise Missing("iceoryx2 is not installed") from error


class Iceoryx(Peer):
    """Slices of bytes: one copy into a loaned one, one copy out of the one that came, at each end."""

    polls = True

    def prepare(self, folder: str) -> None:
        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        self.service = f"softcxl-benchmark-{os.getpid()}"
        self.buffer = ctypes.create_string_buffer(LARGEST)

    def open(self):  # type: ignore[no-untyped-def]
        self.node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        Bytes = iceoryx2.Slice[ctypes.c_uint8]
        return (
            self.node.service_builder(iceoryx2.ServiceName.new(self.service))
            .request_response(Bytes, Bytes)
            .open_or_create()
        )

    def listen(self) -> None:
        self.server = self.open().server_builder().initial_max_slice_len(LARGEST).create()

    def connect(self) -> None:
        self.client = self.open().client_builder().initial_max_slice_len(LARGEST).create()

    def serve(self, count: int, size: int) -> None:
        receive = self.server.receive
        for _ in range(count):
            while (request := receive()) is None:
                pass
            came = request.payload()
            size = came.len()
            loan = request.loan_slice_uninit(size)
            ctypes.memmove(loan.payload().as_ptr(), came.as_ptr(), size)
            loan.assume_init().send()
            request.delete()

    def ask(self, request: bytes) -> int:
        loan = self.client.loan_slice_uninit(len(request))
        ctypes.memmove(loan.payload().as_ptr(), request, len(request))
        pending = loan.assume_init().send()
        while (response := pending.receive()) is None:
            pass
        came = response.payload()
        size: int = came.len()
        ctypes.memmove(self.buffer, came.as_ptr(), size)
        response.delete()
        pending.delete()
        return size
