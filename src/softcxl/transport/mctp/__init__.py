"""MCTP: how a fabric manager reaches command interfaces.

`MctpTcpDoor` serves endpoints over TCP, `MctpClient` is the other end. What an endpoint is, and what it does with a
command, is the server's affair: see `Endpoint`.
"""

from softcxl.transport.mctp.cci import Dialect
from softcxl.transport.mctp.client import CciResponse, MctpClient, Notify
from softcxl.transport.mctp.errors import ConnectionEnded, ControlError, MctpError, MessageError, NoAnswer
from softcxl.transport.mctp.node import Node
from softcxl.transport.mctp.port import Answer, CommandInterface, Endpoint, Open, Send
from softcxl.transport.mctp.tcp import MctpTcpDoor

__all__ = [
    "Answer",
    "CciResponse",
    "CommandInterface",
    "ConnectionEnded",
    "ControlError",
    "Dialect",
    "Endpoint",
    "MctpClient",
    "MctpError",
    "MctpTcpDoor",
    "MessageError",
    "NoAnswer",
    "Node",
    "Notify",
    "Open",
    "Send",
]
