"""A control socket: one line in, one line out, many clients at a time. What the lines say is the server's affair.

`Door` listens, and gives each client a thread; `converse`, and `Connection` for more than one line, are the other end.
"""

from softcxl.transport.control.client import Connection, NoServer, converse
from softcxl.transport.control.door import MAX_REQUEST, Answerer, Client, Door

__all__ = ["MAX_REQUEST", "Answerer", "Client", "Connection", "Door", "NoServer", "converse"]
