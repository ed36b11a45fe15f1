"""Addresses of endpoints."""

import pytest

from softcxl.fm.address import ServerAddress, TcpAddress, parse
from softcxl.fm.errors import AddressError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:127.0.0.1:2508", TcpAddress("127.0.0.1", 2508)),
        ("tcp:rack7.example", TcpAddress("rack7.example", 2508)),
        ("tcp:[::1]:65535", TcpAddress("::1", 65535)),
        ("tcp:[fe80::1%eth0]", TcpAddress("fe80::1%eth0", 2508)),
        ("unix:/run/x.sock", ServerAddress("/run/x.sock")),
        ("unix:x:y", ServerAddress("x:y")),
    ],
)
def test_an_address(text, address):
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp",
        "tcp:",
        "tcp::2508",
        "tcp:h:",
        "tcp:h:x",
        "tcp:h:-1",
        "tcp:h:999999",
        "tcp:::1",
        "unix:",
        "h:2508",
        "udp:h:1",
    ],
)
def test_what_is_none(text):
    with pytest.raises(
        AddressError, match=r"is no address of an endpoint; tcp:HOST:PORT .* and unix:PATH are allowed"
    ):
        parse(text)


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_there_is_not(port):
    with pytest.raises(AddressError, match=f"port {port}; 1 to 65535 are allowed"):
        parse(f"tcp:h:{port}")
