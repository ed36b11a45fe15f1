"""Guest memory reached by messages, in the protocol's form or in that of the first QEMU that spoke it.

QEMU 10.1 has the count 32 bits wide and the data at byte 12 of the payload, where the protocol's text and
QEMU 11.1 have 64 bits and byte 16. Which of the two a client speaks shows in its reply to a write of nothing:
the early form has no payload there, the text's repeats address and count.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from softcxl.spec.vfio_user import Command, DmaAccess, EarlyQemuDmaAccess

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
        self._early: bool | None = None

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes, at most what one message may carry."""
        request = DmaAccess(address=address, count=size).pack()  # the early count is this one's lower half
        early = self._is_early(address)
        answer = self._exchange.call(Command.DMA_READ, request, self._timeout)
        start = EarlyQemuDmaAccess.__layout__.size if early else DmaAccess.__layout__.size
        data = answer[start : start + size]
        if len(data) != size or EarlyQemuDmaAccess.unpack_from(answer) != EarlyQemuDmaAccess(
            address=address, count=size
        ):
            raise OSError(errno.EPROTO, f"the client's reply does not hold {size} bytes at {address:#x}")
        return data

    def write(self, address: int, data: bytes) -> None:
        """Store `data`, at most what one message may carry."""
        if self._is_early(address):
            # That QEMU wants the whole of its structure, padded to 8 bytes, besides the data.
            message = EarlyQemuDmaAccess(address=address, count=len(data)).pack() + data + bytes(4)
        else:
            message = DmaAccess(address=address, count=len(data)).pack() + data
        self._exchange.call(Command.DMA_WRITE, message, self._timeout)

    def _is_early(self, address: int) -> bool:
        if self._early is None:
            nothing = DmaAccess(address=address, count=0).pack()
            try:
                self._early = not self._exchange.call(Command.DMA_WRITE, nothing, self._timeout)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise  # no memory there, or the guest has switched DMA off: that says nothing
                self._early = False  # early QEMU does not mind
        return self._early
