"""Accounts of what clients have of the pool, against a list of regions."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from softcxl.fm.pool.accounts import NOBODY, Accounts
from softcxl.fm.pool.errors import Refusal
from softcxl.pool.layout import identity
from softcxl.pool.protocol import Status

LIMITS = {"train": 100, "none": 0, "*": 40}
NAMES = ["train", "none", "x", "y"]


class AccountsAgainstRegions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.accounts = Accounts(LIMITS)
        self.accounts.enforced = True
        self.regions: list[tuple[str, int]] = []

    def has(self, name: str) -> int:
        return sum(size for owner, size in self.regions if owner == name)

    @rule(name=st.sampled_from(NAMES), size=st.integers(1, 60))
    def allocates(self, name: str, size: int) -> None:
        allowed = {"train": 100, "none": 0}.get(name, 40)
        if self.has(name) + size > allowed:
            with pytest.raises(Refusal, match=f"may have {allowed}B of the pool and have {self.has(name)}B"):
                self.accounts.charge(identity(name), size)
        else:
            self.accounts.charge(identity(name), size)
            self.regions.append((name, size))

    @precondition(lambda self: self.regions)
    @rule(data=st.data())
    def frees(self, data: st.DataObject) -> None:
        name, size = self.regions.pop(data.draw(st.integers(0, len(self.regions) - 1)))
        self.accounts.charge(identity(name), -size)

    @rule(name=st.sampled_from(NAMES))
    def dies(self, name: str) -> None:
        for owner, size in self.regions:
            if owner == name:
                self.accounts.charge(identity(owner), -size)
        self.regions = [region for region in self.regions if region[0] != name]

    @rule(lower=st.booleans())
    def restarts(self, lower: bool) -> None:
        """What is there stays, also where a quota is lower now."""
        self.accounts = Accounts({"train": 1} if lower else LIMITS)
        for name, size in self.regions:
            self.accounts.charge(identity(name), size)
        if lower:
            self.accounts.enforced = True
            with pytest.raises(Refusal) as refused:
                self.accounts.charge(identity("train"), 2)
            assert refused.value.status == Status.QUOTA
            self.accounts = Accounts(LIMITS)
            for name, size in self.regions:
                self.accounts.charge(identity(name), size)
        self.accounts.enforced = True

    @invariant()
    def every_account_is_exact(self) -> None:
        assert [self.accounts.used(identity(name)) for name in NAMES] == [self.has(name) for name in NAMES]
        assert self.accounts.told() == [
            {"name": "none", "limit": 0, "used": self.has("none")},
            {"name": "train", "limit": 100, "used": self.has("train")},
            {"name": "*", "limit": 40, "used": None},
        ]


TestAccountsAgainstRegions = AccountsAgainstRegions.TestCase
TestAccountsAgainstRegions.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_without_quotas_everybody_may_have_everything() -> None:
    accounts = Accounts(None)
    accounts.enforced = True
    accounts.charge(identity("anybody"), 1 << 53)
    assert (accounts.used(identity("anybody")), accounts.limit(identity("anybody"))) == (1 << 53, None)
    assert accounts.told() == []


def test_what_the_server_has_itself_counts_for_nobody() -> None:
    accounts = Accounts({"*": 0})
    accounts.enforced = True
    accounts.charge(NOBODY, 1 << 20)
    assert accounts.used(NOBODY) == 0


def test_the_refusal_says_what_is_allowed_and_what_was_asked() -> None:
    accounts = Accounts({"train": 1 << 29})
    accounts.enforced = True
    accounts.charge(identity("train"), 400 << 20)
    with pytest.raises(Refusal) as refused:
        accounts.charge(identity("train"), 128 << 20)
    assert str(refused.value) == (
        "clients of this name may have 512MiB of the pool and have 400MiB; 128MiB more were asked for"
    )
