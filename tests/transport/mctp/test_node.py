"""The MCTP control protocol, message by message (DSP0236 1.3 §12)."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from softcxl.spec.mctp.control import CompletionCode
from softcxl.transport.mctp import Endpoint, MctpClient, MctpTcpDoor, Node
from softcxl.transport.mctp.node import identifier


def endpoint(name: str, uuid: UUID | None = None) -> Endpoint:
    return Endpoint(name, lambda send: None, uuid)  # type: ignore[arg-type,return-value]


ID = UUID("00112233-4455-6677-8899-aabbccddeeff")


@pytest.fixture
def node() -> Node:
    return Node({8: endpoint("first", ID), 9: endpoint("second")})


def ask(node: Node, request: str, eid: int = 8, *, padded: bool = False) -> str | None:
    slot = node.find(eid)
    assert slot is not None
    answer = node.control(slot, bytes.fromhex(request), padded=padded)
    return None if answer is None else answer.hex(" ")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("00 80 02", "00 00 02 00 08 12 00"),  # a bridge, of which ID 8 is the static one
        ("00 9f 02", "00 1f 02 00 08 12 00"),  # instance 1Fh
        ("00 80 03", "00 00 03 00 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff"),
        ("00 80 04 ff", "00 00 04 00 04 f1 f0 ff 00 f1 f1 f0 00 f1 f2 f0 00 f1 f3 f1 00"),
        ("00 80 04 00", "00 00 04 00 04 f1 f0 ff 00 f1 f1 f0 00 f1 f2 f0 00 f1 f3 f1 00"),
        ("00 80 04 07", "00 00 04 00 01 f1 f0 f0 00"),
        ("00 80 04 08", "00 00 04 00 01 f1 f0 f0 00"),
        ("00 80 04 01", "00 00 04 80"),  # PLDM
        ("00 80 05", "00 00 05 00 02 07 08"),
        ("00 80 06 00", "00 00 06 02"),
        ("00 80 0a 00", "00 00 0a 00 ff 02 01 08 a0 00 00 00 01 09 20 00 00 00"),
        ("00 80 0a 02", "00 00 0a 02"),
        ("00 80 07 08", "00 00 07 05"),
        ("00 80 08 00 00 00", "00 00 08 05"),
        ("00 80 0b", "00 00 0b 05"),
        ("00 80 ff", "00 00 ff 05"),
        # lengths
        ("00 80 02 00", "00 00 02 03"),
        ("00 80 04", "00 00 04 03"),
        ("00 80 01 00", "00 00 01 03"),
        ("00 80 01 00 0a 00", "00 00 01 03"),
        # no requests, or nobody waits
        ("00 00 02", None),
        ("00 c0 02", None),
        ("00 80", None),
        ("00", None),
    ],
)
def test_requests_and_their_answers(node, request_, answer) -> None:
    assert ask(node, request_) == answer


def test_what_follows_the_parameters_may_be_padding(node) -> None:
    assert ask(node, "00 80 02" + "ee" * 61, padded=True) == "00 00 02 00 08 12 00"
    assert ask(node, "00 80 04", padded=True) == "00 00 04 03"


def test_an_endpoint_beside_the_first_is_a_simple_one(node) -> None:
    assert ask(node, "00 80 02", 9) == "00 00 02 00 09 02 00"
    assert ask(node, "00 80 0a 00", 9) == "00 00 0a 05"
    assert ask(Node({8: endpoint("alone")}), "00 80 02") == "00 00 02 00 08 02 00"


def test_endpoint_ids_are_set_and_taken_back(node) -> None:
    assert ask(node, "00 80 01 00 20") == "00 00 01 00 00 20 00"
    assert ask(node, "00 80 02", 0x20) == "00 00 02 00 20 13 00"  # not the static one
    assert node.find(8) is None
    assert list(node.endpoints) == [0x20, 9]
    assert ask(node, "00 80 01 01 09", 0) == "00 00 01 00 10 20 00"  # the second one's: rejected
    assert ask(node, "00 80 01 02 00", 0) == "00 00 01 00 00 08 00"  # reset
    assert node.find(0) is node.find(8)


@pytest.mark.parametrize("parameters", ["00 00", "00 ff", "00 07", "03 20", "04 20"])
def test_endpoint_ids_that_cannot_be(node, parameters) -> None:
    assert ask(node, f"00 80 01 {parameters}") == f"00 00 01 {CompletionCode.INVALID_DATA:02x}"
    assert list(node.endpoints) == [8, 9]


def test_the_identifier_is_made_from_the_name_where_none_is_given() -> None:
    assert identifier(endpoint("rack")) == identifier(endpoint("rack")) != identifier(endpoint("pool"))
    assert identifier(endpoint("rack", ID)) == ID


def test_a_long_routing_table_comes_in_parts() -> None:
    eids = list(range(8, 48, 2))

    async def work() -> list[int]:
        async with await MctpClient.connect(*door.address) as client:
            return await client.endpoint_ids()

    with MctpTcpDoor({eid: endpoint(str(eid)) for eid in eids}, port=0) as door:
        assert asyncio.run(work()) == eids
