"""MCTP: how a fabric manager reaches command interfaces.

`MctpTcpDoor` serves endpoints over TCP, `MctpClient` is the other end; `MctpSerialDoor`, `MctpI2cDoor` and
`MctpKernelDoor` serve them over a serial line, an I2C bus and the kernel's own stack, `MctpSerialSocket` over serial
lines of programs such as QEMU. What an endpoint is, and what it does with a command, is the server's affair: see
`Endpoint`.
"""

from softcxl.transport.mctp.cci import Dialect
from softcxl.transport.mctp.client import CciResponse, MctpClient, Notify
from softcxl.transport.mctp.errors import (
    ConnectionEnded,
    ControlError,
    KernelUnsupported,
    MctpError,
    MessageError,
    NoAnswer,
)
from softcxl.transport.mctp.i2c import MctpI2cDoor
from softcxl.transport.mctp.kernel import MctpKernelDoor
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.port import Answer, CommandInterface, Endpoint, Open, Send
from softcxl.transport.mctp.serial import MctpSerialDoor
from softcxl.transport.mctp.serial_socket import MctpSerialSocket
from softcxl.transport.mctp.tcp import MctpTcpDoor

__all__ = [
    "Answer",
    "CciResponse",
    "CommandInterface",
    "ConnectionEnded",
    "ControlError",
    "Dialect",
    "Endpoint",
    "KernelUnsupported",
    "MctpClient",
    "MctpError",
    "MctpI2cDoor",
    "MctpKernelDoor",
    "MctpSerialDoor",
    "MctpSerialSocket",
    "MctpTcpDoor",
    "MessageError",
    "NoAnswer",
    "Node",
    "Notify",
    "Open",
    "Send",
]
