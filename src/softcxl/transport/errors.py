"""What goes wrong when a door opens.

::

    DoorError                  a door cannot be opened at its path
    └── DoorInUse              a live server already listens there
"""

from __future__ import annotations


class DoorError(Exception):
    """A door cannot be opened at its path."""


class DoorInUse(DoorError):
    """A live server listens at the path."""
