"""`softcxl fm`: a fabric manager on the command line. Its verbs call `softcxl.fm`, and have no logic of their own."""

from softcxl.cli.fm import access, control, device, dynamic, events, grants, message, switch, tree
from softcxl.cli.fm.group import fm

__all__ = ["fm"]

_VERBS = access, control, device, dynamic, events, grants, message, switch, tree
