"""Guest memory reached by messages, in the protocol's form or in QEMU's.

QEMU (11.1) has the count 32 bits wide and the data at byte 12 of the payload, where the protocol's text has
64 bits and byte 16. Which of the two a client speaks shows in its reply to a write of nothing: QEMU's has no
payload, the text's repeats address and count.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from softcxl.spec.vfio_user import Command, DmaAccess, QemuDmaAccess

if TYPE_CHECKING:
    from softcxl.transport.vfio_user.exchange import Exchange


class DmaMessages:
    """Reads and writes of guest memory by commands to the client; `timeout` is in seconds for each.

    Errors are `OSError`, as of `Exchange.call`. A client that is waiting for us (QEMU is, with its big lock
    held, while a guest's access to a BAR is being answered) may not reply before the timeout.
    """

    def __init__(self, exchange: Exchange, timeout: float) -> None:
        self._exchange = exchange
        self._timeout = timeout
        self._qemu: bool | None = None

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes, at most what one message may carry."""
        request = DmaAccess(address=address, count=size).pack()  # QEMU's count is this one's lower half
        qemu = self._speaks_qemu(address)
        answer = self._exchange.call(Command.DMA_READ, request, self._timeout)
        start = QemuDmaAccess.__layout__.size if qemu else DmaAccess.__layout__.size
        data = answer[start : start + size]
        if len(data) != size or QemuDmaAccess.unpack_from(answer) != QemuDmaAccess(
            address=address, count=size
        ):
            raise OSError(errno.EPROTO, f"the client's reply does not hold {size} bytes at {address:#x}")
        return data

    def write(self, address: int, data: bytes) -> None:
        """Store `data`, at most what one message may carry."""
        if self._speaks_qemu(address):
            # QEMU wants the whole of its structure, padded to 8 bytes, besides the data.
            message = QemuDmaAccess(address=address, count=len(data)).pack() + data + bytes(4)
        else:
            message = DmaAccess(address=address, count=len(data)).pack() + data
        self._exchange.call(Command.DMA_WRITE, message, self._timeout)

    def _speaks_qemu(self, address: int) -> bool:
        if self._qemu is None:
            nothing = DmaAccess(address=address, count=0).pack()
            try:
                self._qemu = not self._exchange.call(Command.DMA_WRITE, nothing, self._timeout)
            except OSError as error:
                if error.errno in (errno.ETIMEDOUT, errno.ENOTCONN):
                    raise
                self._qemu = False  # QEMU has nothing against it
        return self._qemu
