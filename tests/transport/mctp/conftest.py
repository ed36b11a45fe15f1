"""Endpoints that answer as they are told, behind a door on a port of its own."""

from __future__ import annotations

import pytest

from softcxl.transport.mctp import Dialect, MctpTcpDoor
from tests.transport.mctp.interfaces import Echoing


@pytest.fixture
def served() -> Echoing:
    return Echoing()


@pytest.fixture
def door(served):
    with MctpTcpDoor({8: served.endpoint("first"), 9: served.endpoint("second")}, port=0) as door:
        yield door


@pytest.fixture
def old_door(served):
    with MctpTcpDoor({8: served.endpoint("first")}, port=0, dialect=Dialect.CXL2) as door:
        yield door
