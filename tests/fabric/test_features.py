"""Vendor features from a topology file: keys, their faults, and what `state` keeps."""

import struct
from uuid import UUID

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.feature import VendorFeature
from softcxl.fabric.build import Fabric
from softcxl.fabric.errors import TopologyError
from softcxl.fabric.topology import loads
from softcxl.testing.driver import Driver

ONE, TWO = "11112222-3333-4444-5555-666677778888", "AAAABBBB-0000-0000-0000-000000000000"
SPPR = "892ba475-fad8-474e-9d3e-692c917568bb"


def text(features, more=""):
    return f"{more}devices:\n  mem0: {{volatile: 256MiB, features: {features}}}\n"


def test_every_key_reaches_the_device():
    given = (
        f"[{{uuid: {ONE}, size: 4, version: 7, default: 'f00f', changeable: '0fFF', effect: cold-reset}},"
        f" {{uuid: {TWO}, size: 1KiB}}]"
    )
    with Fabric.loads(text(given), clock=ManualClock()) as fabric:
        features = list(fabric.devices["mem0"].features.features.values())[8:]
        driver = Driver(fabric.devices["mem0"])
        listed = driver.send(0x0500, struct.pack("<IHxx", 4096, 8))[1][8:]
    assert [one.identifier for one in features] == [UUID(ONE), UUID(TWO)]
    assert [(one.default, one.mask) for one in features if isinstance(one, VendorFeature)] == [
        (b"\xf0\x0f\0\0", b"\x0f\xff\0\0"),
        (bytes(1024), b"\xff" * 1024),
    ]
    told = [struct.unpack("<16sHHHIBBH18x", listed[at : at + 48]) for at in (0, 48)]
    assert [(*one[1:4], *one[5:]) for one in told] == [(8, 4, 4, 7, 7, 0x201), (9, 1024, 1024, 1, 1, 0x202)]


@pytest.mark.parametrize(
    ("features", "path", "says"),
    [
        ("[{size: 4}]", "devices.mem0.features[0].uuid", "is missing"),
        ("[{uuid: 1-2, size: 4}]", "devices.mem0.features[0].uuid", "'1-2' is not a UUID as 8-4-4-4-12"),
        (f"[{{uuid: {SPPR}, size: 4}}]", "devices.mem0.features[0].uuid", "one of the standard's"),
        (
            f"[{{uuid: {ONE}, size: 4}}, {{uuid: {ONE}, size: 4}}]",
            "devices.mem0.features[1].uuid",
            "is that of features[0]; each feature needs its own",
        ),
        (f"[{{uuid: {ONE}, size: 0}}]", "devices.mem0.features[0].size", "is not a size from 1B to 65535B"),
        (
            f"[{{uuid: {ONE}, size: 1, default: '0'}}]",
            "devices.mem0.features[0].default",
            "hexadecimal digits",
        ),
        (
            f"[{{uuid: {ONE}, size: 1, default: '0001'}}]",
            "devices.mem0.features[0].default",
            "2 bytes are given, and its size is 1",
        ),
        (
            f"[{{uuid: {ONE}, size: 1, effect: later}}]",
            "devices.mem0.features[0].effect",
            "is not one of cold-reset",
        ),
    ],
)
def test_what_cannot_be(features, path, says):
    with pytest.raises(TopologyError) as caught:
        loads(text(features))
    assert f"{path}:" in str(caught.value)
    assert says in str(caught.value)


def test_state_keeps_saved_values(tmp_path):
    given = text(f"[{{uuid: {ONE}, size: 2}}]", f"state: {tmp_path}\n")
    with Fabric.loads(given, clock=ManualClock()) as fabric:
        head = UUID(ONE).bytes + struct.pack("<IHB9x", 8, 0, 1)
        assert Driver(fabric.devices["mem0"]).send(0x0502, head + b"ok")[0] == 0
    with Fabric.loads(given, clock=ManualClock()) as fabric:
        assert fabric.devices["mem0"].features[UUID(ONE)].value == b"ok"
