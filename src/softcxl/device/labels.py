"""The label storage area, where operating systems keep the labels of regions and namespaces."""

from __future__ import annotations

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.memory.media import Medium
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.command.label import GET_LSA, SET_LSA, GetLsaRequest, GetLsaResponse, SetLsaRequest


class LabelCommands(CommandSet):
    """Get and Set LSA over `medium`; without one the area has size 0, and every access is out of range."""

    def __init__(self, medium: Medium | None, payload_max: int) -> None:
        self._medium, self._payload_max = medium, payload_max

    @property
    def size(self) -> int:
        """Bytes of the area."""
        return self._medium.size if self._medium else 0

    def clear(self) -> None:
        """Make the whole area zeros."""
        if self._medium:
            self._medium.clear(0, self.size)

    @command(GET_LSA)
    def get_lsa(self, request: GetLsaRequest) -> GetLsaResponse:
        if request.length > self._payload_max:
            raise CommandError(ReturnCode.INVALID_INPUT)
        medium = self._within(request.offset, request.length)
        return GetLsaResponse(data=medium.read(request.offset, request.length))

    @command(SET_LSA)
    def set_lsa(self, request: SetLsaRequest) -> None:
        medium = self._within(request.offset, len(request.data))
        medium.write(request.offset, request.data)
        medium.sync()

    def _within(self, offset: int, length: int) -> Medium:
        if self._medium is None or offset + length > self.size:
            raise CommandError(ReturnCode.INVALID_INPUT)
        return self._medium
