"""Any order of what fabric managers and hosts do, with restarts and crashes between: what is there is what was done."""

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fabric import crashes
from tests.fabric.crashes import BLOCK, FORGETS, KEPT, SHARED, Model

LDS = st.integers(0, 3)
BLOCKS = st.integers(0, 3)


class Fabrics(RuleBasedStateMachine):
    """One folder, one fabric after the other."""

    def __init__(self):
        super().__init__()
        self.root = tempfile.TemporaryDirectory(prefix="softcxl-model-")
        self.folder = Path(self.root.name) / "fabric"
        crashes.begin(self.folder)
        self.model = Model()
        self.fabric = crashes.load(self.folder)
        self.starts = 1

    def teardown(self):
        self.fabric.close()
        self.root.cleanup()

    def do(self, *operation):
        if crashes.do(self.fabric, list(operation)):
            self.model.apply(list(operation))

    @rule(vcs=st.integers(0, 1), vppb=st.integers(0, 3), ld=LDS)
    def bind_a_logical_device(self, vcs, vppb, ld):
        self.do("bind", vcs, vppb, 0, ld)

    @rule(vcs=st.integers(0, 1), vppb=st.integers(0, 3), port=st.integers(0, 5))
    def bind_a_port(self, vcs, vppb, port):
        self.do("bind", vcs, vppb, port, None)

    @precondition(lambda self: self.model.bindings)
    @rule(which=st.integers(0, 4), option=st.sampled_from([1, 2]))
    def unbind(self, which, option):
        bound = sorted(self.model.bindings)
        self.do("unbind", *bound[which % len(bound)], option)

    @rule(ld=LDS, volatile=st.integers(0, 2), persistent=st.integers(0, 2))
    def allocate(self, ld, volatile, persistent):
        self.do("allocate", ld, volatile, persistent)

    @rule(ld=LDS, block=BLOCKS)
    def give(self, ld, block):
        self.do("give", ld, SHARED + BLOCK * block)

    @rule(ld=LDS, block=BLOCKS)
    def take(self, ld, block):
        self.do("take", ld, SHARED + BLOCK * block)

    @rule(region=st.sampled_from([KEPT, FORGETS]), block=BLOCKS, accept=st.booleans())
    def extent(self, region, block, accept):
        self.do("accept" if accept else "release", region + BLOCK * block)

    @rule(at=st.integers(0, 63), value=st.integers(1, 255))
    def write(self, at, value):
        self.do("write", at * 4096, value)

    @rule()
    def restart(self):
        self.fabric.close()
        self._start()

    @rule()
    def crash(self):
        """As far as the folder can tell: nothing is written any more, whatever is closed then."""
        self.fabric.store.database.close()
        self.fabric.close()
        self._start()
        assert self.fabric.store.crashed

    def _start(self):
        self.fabric = crashes.load(self.folder)
        self.starts += 1
        assert self.fabric.problems == []

    @invariant()
    def what_is_there_is_what_was_done(self):
        assert crashes.state(self.fabric).plain() == self.model.plain()

    @invariant()
    def the_journal_has_no_gap(self):
        entries = list(self.fabric.store.journal.since(0))
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        assert sum(entry.kind == "started" for entry in entries) == self.starts


TestFabrics = Fabrics.TestCase
TestFabrics.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
