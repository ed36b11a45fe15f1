"""A live fabric behind a control socket: verbs go in as lines of JSON, what they said comes out.

A request and its answer, each one line::

    {"version": 1, "verb": "iomem", "host": "alpha", "arguments": {"as_json": false}}
    {"version": 1, "status": 0, "stdout": "100000000-13fffffff : CXL Window 0\\n", "stderr": ""}

`host` may be left out, and so may any argument that has a default. `status` is an exit status as the command line
has it. A stdout that is no UTF-8 comes as `stdout_base64`.
"""

from softcxl.fabric.control.client import Session, ask, socket_of
from softcxl.fabric.control.messages import VERSION, Answer
from softcxl.fabric.control.service import Service

__all__ = ["VERSION", "Answer", "Service", "Session", "ask", "socket_of"]
