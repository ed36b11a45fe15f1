"""Accounts of what clients have of the pool."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from softcxl.fm.pool.quota import Quotas
from softcxl.pool.errors import QuotaExceeded

LIMITS = {"train": 100, "none": 0, "*": 40}
NAMES = ["train", "none", "x", "y", "*"]


class QuotasAgainstAListOfRegions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.quotas = Quotas(LIMITS)
        self.regions: list[tuple[str, int, int]] = []

    def has(self, name: str) -> int:
        return sum(size * copies for owner, size, copies in self.regions if owner == name)

    @rule(name=st.sampled_from(NAMES), size=st.integers(1, 60), copies=st.integers(1, 4))
    def charge(self, name: str, size: int, copies: int) -> None:
        allowed = {"train": 100, "none": 0}.get(name, 40)
        if self.has(name) + size * copies > allowed:
            with pytest.raises(
                QuotaExceeded, match=f"'{'[*]' if name == '*' else name}' may have {allowed}B"
            ):
                self.quotas.charge(name, size, copies)
        else:
            self.quotas.charge(name, size, copies)
            self.regions.append((name, size, copies))

    @precondition(lambda self: self.regions)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.quotas.release(*self.regions.pop(data.draw(st.integers(0, len(self.regions) - 1))))

    @rule(name=st.sampled_from(NAMES))
    def dies(self, name: str) -> None:
        for region in [region for region in self.regions if region[0] == name]:
            self.quotas.release(*region)
        self.regions = [region for region in self.regions if region[0] != name]

    @rule()
    def restarts(self) -> None:
        self.quotas = Quotas(LIMITS)
        self.quotas.restore((name, size * copies) for name, size, copies in self.regions)

    @invariant()
    def every_account_is_exact(self) -> None:
        assert [self.quotas.used(name) for name in NAMES] == [self.has(name) for name in NAMES]
        shown = {name for name, _, _ in self.regions} | {"train", "none"}
        assert set(self.quotas.accounts()) == shown


TestQuotasAgainstAListOfRegions = QuotasAgainstAListOfRegions.TestCase
TestQuotasAgainstAListOfRegions.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_without_quotas_everybody_may_have_everything() -> None:
    quotas = Quotas()
    quotas.charge("anybody", 1 << 50, 8)
    assert quotas.accounts() == {"anybody": (1 << 53, None)}


def test_the_error_says_what_is_allowed_and_what_was_asked() -> None:
    quotas = Quotas({"train": 1 << 29})
    quotas.charge("train", 400 << 20)
    with pytest.raises(QuotaExceeded) as raised:
        quotas.charge("train", 64 << 20, 2)
    assert str(raised.value) == (
        "'train' may have 512MiB of the pool and has 400MiB; 128MiB (2 copies of 64MiB) more were asked for"
    )
    assert quotas.used("train") == 400 << 20


def test_others_are_each_their_own_account() -> None:
    quotas = Quotas({"*": 100})
    for name in ("a", "b", "c"):
        quotas.charge(name, 100)
    with pytest.raises(QuotaExceeded):
        quotas.charge("b", 1)


def test_what_is_there_stays_where_a_quota_is_lowered() -> None:
    quotas = Quotas({"train": 10})
    quotas.restore([("train", 50), ("train", 25), ("x", 1)])
    assert quotas.accounts() == {"train": (75, 10), "x": (1, None)}
    with pytest.raises(QuotaExceeded, match="has 75B"):
        quotas.charge("train", 1)
    quotas.release("train", 50)
    quotas.release("train", 25)
    quotas.charge("train", 10)


def test_nobody_gives_back_more_than_there_is() -> None:
    quotas = Quotas()
    quotas.charge("train", 10)
    with pytest.raises(ValueError, match="'train' has 10 bytes; 11 cannot be taken from them"):
        quotas.release("train", 11)
    assert quotas.used("train") == 10
