"""A control socket: one line in, one line out, many clients at a time. What the lines say is the server's affair.

`Door` listens, and gives each client a thread; `converse` is the other end.
"""

from softcxl.transport.control.client import NoServer, converse
from softcxl.transport.control.door import MAX_REQUEST, Answerer, Door

__all__ = ["MAX_REQUEST", "Answerer", "Door", "NoServer", "converse"]
