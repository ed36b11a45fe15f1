"""The server's side: a request becomes a verb on a live host, and what it said an answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from softcxl.fabric.control.messages import (
    Answer,
    Garbage,
    RequestError,
    make,
    read_request,
    write,
)
from softcxl.fabric.errors import sentences

if TYPE_CHECKING:
    from softcxl.fabric.hosts import Caller, Hosts, Verb

log = logging.getLogger(__name__)

_BUG = 70


class Service:
    """Answers a control door's requests on `hosts`; `verbs` are what can be asked for, by name. From any thread."""

    def __init__(self, hosts: Hosts, verbs: Mapping[str, type[Verb]]) -> None:
        self._hosts = hosts
        self._verbs = verbs

    def answer(self, line: bytes, client: Caller) -> tuple[bytes, bool]:
        """The answer to a line, and whether its sender is to be listened to any more: garbage ends it."""
        stdout: list[bytes] = []
        stderr: list[str] = []
        status, goes_on = 0, True
        try:
            request = read_request(line)
            self._hosts.perform(
                self._verb(request.verb, request.arguments),
                request.host,
                lambda text: stdout.append(text.encode() if isinstance(text, str) else text),
                stderr.append,
                client,
            )
        except Exception as error:  # noqa: BLE001  whatever a verb does, it is an answer
            status = self._told(error, stderr)
            goes_on = not isinstance(error, Garbage)
        return write(Answer.of(status, b"".join(stdout), "".join(stderr))), goes_on

    def refuse(self, reason: str) -> bytes:
        """The answer to what is no request."""
        return write(Answer(status=RequestError.exit_code, stderr=f"softcxl: {reason}\n"))

    def _verb(self, name: str, arguments: Mapping[str, object]) -> Verb:
        if name not in self._verbs:
            raise RequestError(f"there is no verb {name!r}; there are {', '.join(self._verbs)}")
        return make(self._verbs[name], arguments)

    def _told(self, error: Exception, stderr: list[str]) -> int:
        told = sentences(error)
        if told is None:
            log.error("a verb failed; a bug of SoftCXL", exc_info=error)
            kind = type(error).__name__
            stderr.append(f"softcxl: internal error: {kind}: {error}; the server's stderr shows where\n")
            return _BUG
        lines, status = told
        stderr += [f"{line}\n" for line in lines]
        return status
