"""MCTP: how a fabric manager reaches command interfaces. `Endpoint` is what a door serves."""

from softcxl.transport.mctp.port import Answer, CommandInterface, Endpoint, Open, Send

__all__ = ["Answer", "CommandInterface", "Endpoint", "Open", "Send"]
