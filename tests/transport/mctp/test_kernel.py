"""The kernel's own MCTP, where there is any; `tests/kernel` has it in a guest."""

from __future__ import annotations

import socket

import pytest

from softcxl.transport.mctp import KernelUnsupported, MctpKernelDoor
from softcxl.transport.mctp.kernel import _ADDRESS, AF_MCTP


def supported() -> bool:
    try:
        socket.socket(AF_MCTP, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def test_addresses_are_laid_out_as_linux_has_them() -> None:
    """struct sockaddr_mctp: 2 + 2 (pad) + 4 + 1 + 1 + 1 + 1 (pad) bytes."""
    packed = _ADDRESS.pack(AF_MCTP, 0, 0x01020304, 9, 7, 0x0B)
    assert len(packed) == 12
    assert packed[8:12].hex() == "09070b00"
    assert int.from_bytes(packed[:2], "little") == 45
    assert int.from_bytes(packed[4:8], "little") == 0x01020304


@pytest.mark.skipif(supported(), reason="this kernel has MCTP")
def test_a_kernel_without_mctp_is_said_to_be_one(served) -> None:
    door = MctpKernelDoor({8: served.endpoint("first")})
    with pytest.raises(
        KernelUnsupported, match="this kernel has no MCTP sockets: Address family not supported"
    ):
        door.open()
    door.close()
    with pytest.raises(KernelUnsupported):
        door.open()
