"""The pool of a multi-headed device: its heads, and whose logical devices are whose (opcodes 5500h and 5501h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softcxl.device.cci import CommandError, CommandSet, command
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.mhd import (
    GET_HEAD_INFO,
    GET_MULTI_HEADED_INFO,
    NO_HEAD,
    GetHeadInfoRequest,
    GetHeadInfoResponse,
    GetMultiHeadedInfoRequest,
    GetMultiHeadedInfoResponse,
)

if TYPE_CHECKING:
    from softcxl.device.mld.device import MultiLogicalDevice


class MultiHeadedCommands(CommandSet):
    """Get Multi-Headed Info and Get Head Info of `mld`."""

    def __init__(self, mld: MultiLogicalDevice) -> None:
        self._mld = mld

    @command(GET_MULTI_HEADED_INFO)
    def get_multi_headed_info(self, request: GetMultiHeadedInfoRequest) -> GetMultiHeadedInfoResponse:
        mld, start = self._mld, request.start
        if start >= mld.ld_count or not request.limit:
            raise CommandError(ReturnCode.INVALID_INPUT)
        owner = {ld: head.port for head in mld.heads for ld in head.lds}
        found = [owner.get(ld, NO_HEAD) for ld in range(mld.ld_count)][start : start + request.limit]
        return GetMultiHeadedInfoResponse(
            ld_count=mld.ld_count, head_count=len(mld.heads), start=start, count=len(found), ld_map=found
        )

    @command(GET_HEAD_INFO)
    def get_head_info(self, request: GetHeadInfoRequest) -> GetHeadInfoResponse:
        heads = self._mld.heads
        if request.start >= len(heads) or request.start + request.count > len(heads):
            raise CommandError(ReturnCode.INVALID_INPUT)
        found = [one.information() for one in heads[request.start : request.start + request.count]]
        return GetHeadInfoResponse(count=len(found), heads=found)
