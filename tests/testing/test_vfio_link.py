"""A client's end of a vfio-user connection, at the end of the connection."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from softcxl.spec.vfio_user import Header, HeaderFlags
from softcxl.testing.vfio_link import Gone, Link

HEAD = Header(ident=1, command=5, size=64, flags=HeaderFlags.make(type=1), error=0).pack()


@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "the server closed the connection$"),
        (HEAD[:5], "the server closed the connection$"),
        (HEAD, "the server closed the connection in the middle of a message$"),
        (HEAD + b"begun", "the server closed the connection in the middle of a message$"),
    ],
)
def test_a_server_that_leaves(tmp_path: Path, said: bytes, told: str, reads: bool) -> None:
    """Of one that has left something unread Linux says that it reset the connection."""
    path = tmp_path / "door"

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100, 0 if reads else socket.MSG_PEEK)
            connection.sendall(said)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        with Link(path, timeout=60) as link:
            link.send(5, b"asked")
            with pytest.raises(Gone, match=told):
                link.receive()
        thread.join()
