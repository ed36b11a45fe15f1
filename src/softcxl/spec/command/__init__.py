"""Commands of the component command interface, a module for each command set (CXL 3.1 §8.2.9).

Every module ends in `COMMANDS`, its commands in order of opcode; `softcxl.spec.command.registry` joins them.
"""

from softcxl.spec.command.base import NO_EFFECT, CelEntry, Command, CommandEffects, ReturnCode

__all__ = ["NO_EFFECT", "CelEntry", "Command", "CommandEffects", "ReturnCode"]
