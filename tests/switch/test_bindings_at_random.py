"""Bindings, devices that come and go, resets and hosts, in any order, beside a simple model of who has what.

Whatever happens: no device is at two hosts, a host has what its vPPBs are bound to as far as the links are up, nothing
is bound by half, and what observers were told makes up the bindings that there are.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from softcxl.device.clock import ManualClock
from softcxl.device.mld.device import MultiLogicalDevice
from softcxl.device.mld.errors import LdInUse
from softcxl.device.type3 import Type3
from softcxl.spec.command.base import ReturnCode
from softcxl.spec.fm.vcs import BindingStatus, UnbindOption
from softcxl.switch.binding import BindingError
from softcxl.switch.physical import PhysicalSwitch
from softcxl.switch.tenant import Nobody
from tests.switch.manager import Slow

MIB = 1 << 20
PORTS, HOSTS, VPPBS, LDS = 3, 2, 2, 4
WITH_MEMORY = (0, 1, 3)

ports, hosts, vppbs = (st.integers(0, count) for count in (PORTS, HOSTS, VPPBS))  # one more than there are
lds = st.none() | st.integers(0, LDS)


class Told:
    """What a journal would say: the bindings that were made and not unmade, and those under way."""

    def __init__(self):
        self.bindings, self.under_way = {}, set()

    def before(self, change):
        key = change.vcs, change.vppb
        assert key not in self.under_way
        assert (key in self.bindings) != change.bound
        self.under_way.add(key)

    def after(self, change, code):
        key = change.vcs, change.vppb
        self.under_way.remove(key)
        if code == ReturnCode.SUCCESS:
            if change.bound:
                self.bindings[key] = change.port, change.ld
            else:
                del self.bindings[key]


class Bindings(RuleBasedStateMachine):
    @initialize()
    def build(self):
        clock = ManualClock()
        self.devices = [Type3(f"mem{n}", volatile=256 * MIB, clock=clock) for n in range(2)]
        self.pool = MultiLogicalDevice(
            "pool",
            volatile=4 * LDS * 256 * MIB,
            logical_devices=[256 * MIB if ld in WITH_MEMORY else 0 for ld in range(LDS)],
            clock=clock,
        )
        virtual = [(f"host{n}", VPPBS) for n in range(HOSTS)]
        self.switch = PhysicalSwitch("rack", ports=PORTS, virtual=virtual, clock=clock)
        self.told = Told()
        self.switch.observers.append(self.told)
        self.tenants = {vcs: Slow() for vcs in self.switch.virtual}
        for vcs, one in self.switch.virtual.items():
            one.tenant = self.tenants[vcs]
        # the model
        self.bound = {}  # (vcs, vppb) -> (port, ld)
        self.leaving = {}  # (vcs, vppb) -> operation
        self.slots = dict.fromkeys(range(PORTS))
        self.held, self.cut = set(), set()

    def teardown(self):
        if hasattr(self, "switch"):
            for one in self.switch.virtual.values():
                one.tenant = Nobody()
            self.switch.close()
            self.pool.close()
            for device in self.devices:
                device.close()

    # -- the model -----------------------------------------------------------------------------------------------

    def up(self, port):
        return self.slots[port] is not None and port not in self.held | self.cut

    def leads_to(self, key):
        """The function that a vPPB's host should have."""
        port, ld = self.bound[key]
        device = self.slots[port]
        if not self.up(port) and self.there.get(key) is None:
            return None
        if device is self.pool:
            return None if ld is None else self.pool.logical.get(ld)
        return device if ld is None else None

    @property
    def there(self):
        return {
            (vcs, vppb): function
            for vcs, tenant in self.tenants.items()
            for vppb, function in tenant.has.items()
        }

    def may_bind(self, vcs, vppb, port, ld):
        if vcs >= HOSTS or vppb >= VPPBS or port >= PORTS or (vcs, vppb) in self.bound:
            return False
        taken = [other for where, other in self.bound.values() if where == port]
        if ld in taken or None in taken or (ld is None and taken):
            return False
        if self.slots[port] is self.pool:
            return ld in WITH_MEMORY
        return ld is None

    # -- what happens --------------------------------------------------------------------------------------------

    @rule(vcs=hosts, vppb=vppbs, port=ports, ld=lds)
    def bind(self, vcs, vppb, port, ld):
        if self.may_bind(vcs, vppb, port, ld):
            self.switch.bind(vcs, vppb, port, ld)
            self.bound[vcs, vppb] = port, ld
        else:
            with pytest.raises(BindingError) as refused:
                self.switch.bind(vcs, vppb, port, ld)
            assert refused.value.code in (ReturnCode.INVALID_INPUT, ReturnCode.BUSY)

    @precondition(lambda self: self.bound)
    @rule(data=st.data(), option=st.sampled_from(UnbindOption))
    def unbind(self, data, option):
        key = data.draw(st.sampled_from(sorted(self.bound)))
        if key in self.leaving:
            with pytest.raises(BindingError) as refused:
                self.switch.unbind(key[0], key[1], option)
            assert refused.value.code == ReturnCode.BUSY
            return
        has, up = self.there.get(key), self.up(self.bound[key][0])
        operation = self.switch.unbind(key[0], key[1], option)
        at_once = has is None or option == 2 or (option == 0 and not up)
        assert operation.code == (ReturnCode.SUCCESS if at_once else None)
        if at_once:
            del self.bound[key]
        else:
            self.leaving[key] = operation, option

    @rule(vcs=st.integers(0, HOSTS), vppb=st.integers(0, VPPBS))
    def unbind_what_is_not_bound(self, vcs, vppb):
        if (vcs, vppb) not in self.bound:
            with pytest.raises(BindingError) as refused:
                self.switch.unbind(vcs, vppb)
            assert refused.value.code == ReturnCode.INVALID_INPUT

    @precondition(lambda self: self.leaving)
    @rule(data=st.data(), give_up=st.booleans())
    def let_go(self, data, give_up):
        key = data.draw(st.sampled_from(sorted(self.leaving)))
        operation, option = self.leaving[key]
        if give_up:
            operation.give_up(ReturnCode.RETRY_REQUIRED)
            assert operation.code == ReturnCode.RETRY_REQUIRED
        elif option == UnbindOption.MANAGED_HOT_REMOVE:
            self.tenants[key[0]].let_go(key[1])
            assert operation.code == ReturnCode.SUCCESS
            del self.bound[key]
        else:
            return
        del self.leaving[key]

    def gone(self, key):
        """The function that a removal waits for has gone by itself."""
        if key in self.leaving:
            operation, _ = self.leaving.pop(key)
            assert operation.code == ReturnCode.SUCCESS
            del self.bound[key]

    @rule(port=st.integers(0, PORTS - 1), which=st.integers(0, 2))
    def insert(self, port, which):
        device = (*self.devices, self.pool)[which]
        if self.slots[port] is not None or device in self.slots.values():
            return
        self.switch.ports[port].insert(device)
        self.slots[port] = device

    @rule(port=st.integers(0, PORTS - 1))
    def remove(self, port):
        if self.slots[port] is None:
            with pytest.raises(ValueError, match="is empty"):
                self.switch.ports[port].remove()
            return
        assert self.switch.ports[port].remove() is self.slots[port]
        self.slots[port] = None
        for key in [one for one, (where, _) in self.bound.items() if where == port]:
            self.gone(key)

    @rule(port=st.integers(0, PORTS - 1), held=st.booleans())
    def perst(self, port, held):
        if held:
            self.switch.ports[port].assert_perst()
            self.held.add(port)
            self.link_down(port)
        else:
            self.switch.ports[port].deassert_perst()
            self.held.discard(port)

    @rule(port=st.integers(0, PORTS - 1), broken=st.booleans())
    def cable(self, port, broken):
        self.switch.ports[port].cut(broken)
        if broken:
            self.cut.add(port)
            self.link_down(port)
        else:
            self.cut.discard(port)

    def link_down(self, port):
        for key, (_, option) in list(self.leaving.items()):
            if option == UnbindOption.WAIT_FOR_LINK_DOWN and self.bound[key][0] == port:
                self.gone(key)

    @rule(vcs=st.integers(0, HOSTS - 1))
    def another_host(self, vcs):
        self.switch.virtual[vcs].tenant = self.tenants[vcs] = Slow()
        for key in [one for one in self.leaving if one[0] == vcs]:
            self.gone(key)

    @rule(ld=st.integers(0, LDS - 1), size=st.integers(1, 2))
    def allocate(self, ld, size):
        """What a host has bound keeps its size."""
        if ld not in WITH_MEMORY:
            return
        port = next((number for number, device in self.slots.items() if device is self.pool), None)
        bound = (port, ld) in self.bound.values()
        same = self.pool.logical[ld].capacity.total == size * 256 * MIB
        if bound and not same:
            with pytest.raises(LdInUse):
                self.pool.allocate({ld: size * 256 * MIB})
        else:
            self.pool.allocate({ld: size * 256 * MIB})

    # -- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def hosts_have_what_they_should(self):
        there = self.there
        assert len({id(one) for one in there.values()}) == len(there)
        for key in self.bound:
            assert there.get(key) is self.leads_to(key), key
        assert there.keys() <= self.bound.keys()

    @invariant()
    def the_switch_says_so(self):
        for vcs, virtual in self.switch.virtual.items():
            for vppb in virtual.vppbs:
                key = vcs, vppb.number
                port, ld = self.bound.get(key, (None, None))
                assert (vppb.port and vppb.port.number, vppb.ld) == (port, ld) or port == 0
                if key in self.leaving:
                    assert vppb.status is BindingStatus.IN_PROGRESS
                elif port is None:
                    assert vppb.status is BindingStatus.UNBOUND
                else:
                    assert vppb.status is (BindingStatus.BOUND_PORT if ld is None else BindingStatus.BOUND_LD)
                assert vppb.function is self.there.get(key)
        for number in range(PORTS):
            port = self.switch.ports[number]
            assert port.link_up == self.up(number)
            assert sorted(map(str, port.bindings)) == sorted(
                str(ld) for where, ld in self.bound.values() if where == number
            )

    @invariant()
    def the_journal_says_so(self):
        assert self.told.bindings == self.bound
        assert self.told.under_way == self.leaving.keys()

    @invariant()
    def logical_devices_know(self):
        where = next((number for number, device in self.slots.items() if device is self.pool), None)
        for ld, device in self.pool.logical.items():
            holders = [key for key, target in self.bound.items() if target == (where, ld)]
            assert device.holder == (
                f"rack.host{holders[0][0]}.{holders[0][1]}" if where is not None and holders else None
            )


Bindings.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBindings = Bindings.TestCase
