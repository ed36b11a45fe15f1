"""What goes wrong with declared bytes.

::

    WireError (ValueError)
    ├── DeclarationError   a declaration contradicts itself: raised at import, a bug in the table
    ├── RangeError         a value does not fit its field, or an access lies outside its file
    └── LayoutError        bytes that are not as long as the record says
        └── ValueUnknown   bytes of the right length with a value that an item cannot have
"""

from __future__ import annotations


class WireError(ValueError):
    """Base of every error of `softcxl.wire`."""


class DeclarationError(WireError):
    """A register, block or record was declared in a way that cannot be right (overlap, width, size)."""


class RangeError(WireError):
    """A value does not fit its field, or an access lies outside its register file."""


class LayoutError(WireError):
    """Bytes do not have the form that the record declares."""


class ValueUnknown(LayoutError):
    """An item holds a number that is no member of its enum, or text that is not ASCII."""
