"""A device's management interface is what an endpoint serves, by its shape alone."""

from __future__ import annotations

from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.transport.mctp import CommandInterface, Endpoint, Send


def test_the_management_interface_of_a_device_fits() -> None:
    device = Type3("mem0", volatile=256 << 20, serial=7)

    def open_(send: Send) -> CommandInterface:
        return device.management(lambda notification: send(0x0106, notification.pack()))

    interface = Endpoint("mem0", open_).open(lambda opcode, payload: None)
    answer = interface.execute(0x0001, b"")
    assert answer.code == ReturnCode.SUCCESS
    assert answer.payload[8:16] == (7).to_bytes(8, "little")
    assert answer.vendor_status == 0
    interface.close()
