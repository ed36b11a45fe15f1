"""Who has a device's memory by its file is told what befalls it, before the bytes are bad."""

import pytest

from softcxl.device.clock import ManualClock
from softcxl.device.inject import Death
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.wire import Reset

MIB = 1 << 20
SIZE = 256 * MIB
DATA = bytes(range(64)) * 2


class Told:
    """Notes each call, and what the file held by then at `where`."""

    def __init__(self, device, where=0):
        self.device, self.where, self.calls, self.held = device, where, [], []

    def _note(self, *call):
        self.calls.append(call)
        self.held.append(self.device.medium.read(self.where, len(DATA)) == DATA)

    def lost(self, reason):
        self._note("lost", reason)

    def spoiled(self):
        self._note("spoiled")

    def back(self, kept):
        self._note("back", kept)

    def poisoned(self, ranges):
        self._note("poisoned", list(ranges))

    def cleared(self, ranges):
        self._note("cleared", list(ranges))


@pytest.fixture
def device():
    device = Type3("mem0", volatile=SIZE, clock=ManualClock(), serial=7)
    yield device
    device.close()


@pytest.fixture
def told(device):
    device.medium.write(0, DATA)
    told = Told(device)
    device.custody.give(told)
    return told


def test_poison_is_told_before_the_line_is_ones(device, told):
    assert device.inject.poison(0, 128) == 2
    assert told.calls == [("poisoned", [(0, 64)]), ("poisoned", [(64, 64)])]
    assert told.held == [True, False]
    assert device.medium.read(0, 192) == b"\xff" * 128 + bytes(64)
    assert device.custody.bad(0, SIZE) == [(0, 128)]


def test_poison_by_the_command_is_told_as_well(device, told):
    assert device.cci.execute(0x4301, (64).to_bytes(8, "little")).code == ReturnCode.SUCCESS
    assert told.calls == [("poisoned", [(64, 64)])]
    assert told.held == [True]


def test_poison_that_nobody_has_noticed_is_told_as_well(device, told):
    device.inject.spoil(0x40)
    assert told.calls == [("poisoned", [(0x40, 64)])]
    assert device.custody.bad(0, 0x1000) == [(0x40, 64)]


def test_poison_twice_is_told_once(device, told):
    device.inject.poison(0)
    device.inject.poison(0)
    assert len(told.calls) == 1


def test_lines_that_are_cleared_are_told(device, told):
    device.inject.poison(0)
    device.inject.clear_poison(0, 4096)
    assert told.calls[1:] == [("cleared", [(0, 4096)])]
    assert device.custody.bad(0, SIZE) == []


def test_clearing_what_is_good_is_nothing(device, told):
    device.inject.clear_poison(0, 4096)
    assert told.calls == []


def test_clear_poison_writes_what_it_is_told_when_it_has_been_told(device, told):
    data = b"\x5a" * 64
    assert device.cci.execute(0x4302, (0).to_bytes(8, "little") + data).code == ReturnCode.SUCCESS
    assert told.calls == [("poisoned", [(0, 64)]), ("cleared", [(0, 64)])]
    assert told.held == [True, False]
    assert device.medium.read(0, 64) == data


def test_a_line_that_is_worn_out_goes_bad_again_after_it_was_cleared(device, told):
    device.inject.decay(0, every=1, endurance=0)
    device.clock.advance(1)
    device.inject.clear_poison(0)
    assert [one[0] for one in told.calls] == ["poisoned", "cleared", "poisoned"]


@pytest.mark.parametrize(
    ("how", "reason"), [(Death.SILENT, "it does not answer"), (Death.MEDIA, "its media have failed")]
)
def test_death_is_told_before_the_bytes_go(device, told, how, reason):
    device.inject.die(how)
    assert told.calls == [("lost", reason), ("spoiled",)]
    assert told.held == [True, True]
    assert device.medium.read(0, len(DATA)) == bytes(len(DATA))
    device.inject.revive()
    assert told.calls[2:] == [("back", False)]
    assert device.custody.lost is None


def test_firmware_that_stops_leaves_the_memory_as_it_is(device, told):
    device.inject.die(Death.FIRMWARE)
    assert told.calls == []
    assert device.medium.read(0, len(DATA)) == DATA


def test_a_link_that_is_down_loses_nothing(device, told):
    device.inject.link_down()
    device.inject.link_down()
    device.inject.link_up()
    assert told.calls == [("lost", "its link is down"), ("back", True)]
    assert device.medium.read(0, len(DATA)) == DATA


def test_power_that_goes_and_comes_has_lost_volatile_memory(device, told):
    device.reset(Reset.COLD)
    assert told.calls == [("lost", "its power is gone"), ("spoiled",), ("back", False)]
    assert told.held == [True, True, False]


def test_a_hot_reset_keeps_the_memory(device, told):
    device.reset(Reset.HOT)
    assert told.calls == []


def test_media_that_are_disabled_do_not_answer(device, told):
    device.media_disabled = True
    device.media_disabled = False
    assert told.calls == [("lost", "its media are disabled"), ("back", True)]


def test_sanitize_is_told_first(device, told):
    assert device.cci.execute(0x4400, b"").code == ReturnCode.BACKGROUND_STARTED
    device.clock.advance(5)
    assert told.calls == [("lost", "its media are disabled"), ("spoiled",), ("back", False)]
    assert told.held == [True, True, False]


def test_erasing_all_is_as_if_all_were_poisoned_for_a_moment(device, told):
    device.inject.poison(4096)
    del told.calls[:], told.held[:]
    assert device.cci.execute(0x4401, b"").code == ReturnCode.SUCCESS
    assert told.calls == [
        ("poisoned", [(0, SIZE)]),
        ("cleared", [(0, SIZE)]),
        ("poisoned", [(4096, 64)]),  # an erasure leaves bad media bad
    ]
    assert told.held[:2] == [True, False]


def test_a_viral_device_does_not_answer_until_it_is_reset(device, told):
    assert not device.enter_viral()
    assert told.calls == []
    device.dvsec.control.viral_enable = True
    assert device.enter_viral()
    device.reset(Reset.HOT)
    assert told.calls == [("lost", "it is viral"), ("back", True)]


def test_who_comes_later_is_told_what_is_so(device):
    device.inject.poison(64)
    device.inject.link_down()
    told = Told(device)
    device.custody.give(told)
    assert told.calls == [("lost", "its link is down"), ("poisoned", [(64, 64)])]


def test_who_comes_later_is_told_that_nothing_is_there_any_more(device, told):
    device.inject.die()
    later = Told(device)
    device.custody.give(later)
    assert later.calls == [("lost", "it does not answer"), ("spoiled",)]


def test_one_at_a_time_is_told(device, told):
    other = Told(device)
    device.custody.give(other)
    device.inject.poison(0)
    assert (told.calls, len(other.calls)) == ([], 1)


def test_without_anybody_bytes_stay_under_poison_and_death(device):
    device.medium.write(0, DATA)
    device.inject.poison(0)
    device.inject.die()
    assert device.medium.read(0, len(DATA)) == DATA


@pytest.fixture
def logical():
    mld = MultiLogicalDevice("shared", volatile=1 << 30, logical_devices=[SIZE, SIZE], clock=ManualClock())
    yield mld
    mld.close()


def test_power_of_the_whole_device_is_that_of_each_logical_device(logical):
    told = [Told(one) for one in logical.logical.values()]
    for one in told:
        one.device.custody.give(one)
    logical.power_cycle()
    assert [one.calls for one in told] == [[("lost", "its power is gone"), ("spoiled",), ("back", False)]] * 2


def test_a_logical_device_fails_alone(logical):
    told = [Told(one) for one in logical.logical.values()]
    for one in told:
        one.device.custody.give(one)
    logical.logical[1].inject.die()
    assert [[call[0] for call in one.calls] for one in told] == [[], ["lost", "spoiled"]]


def test_memory_in_a_file_of_its_own_is_found_again(tmp_path):
    def made():
        return MultiLogicalDevice(
            "shared",
            volatile=1 << 30,
            logical_devices=[SIZE, SIZE],
            clock=ManualClock(),
            kept={1: tmp_path / "one"},
        )

    with_it = made()
    with_it.logical[1].medium.write(0, DATA)
    with_it.logical[0].medium.write(0, DATA)
    with_it.close()
    again = made()
    assert again.logical[1].medium.read(0, len(DATA)) == DATA
    assert again.logical[0].medium.read(0, len(DATA)) == bytes(len(DATA))
    again.close()
