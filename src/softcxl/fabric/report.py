"""What became of a scenario, and its steps in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from softcxl.fabric.scenario_keys import ACTIONS, Expect, Step


@dataclass(slots=True)
class Outcome:
    """How a step ended. `result` is "done" or "failed" of an action, "met" or "not met" of an expectation, "skipped"
    where there was no guest for it, "waiting" where what it is for has never happened. `seconds` are since the start.
    """

    step: str
    what: str
    result: str = "waiting"
    detail: str = ""
    seconds: float = 0.0
    times: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a scenario, step by step."""

    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> bool:
        """Every expectation was met, and every action could be done."""
        return not any(one.result in ("not met", "failed") for one in self.outcomes)

    def plain(self) -> dict[str, Any]:
        """For JSON: passed, and each step's step, what, result, detail, seconds, times."""
        return {"passed": self.passed, "steps": [asdict(one) for one in self.outcomes]}


def said(step: Step) -> str:
    """A step in words: its device and action, with the values that were given."""
    action = next((key for key in ACTIONS if getattr(step, key) is not None), "nothing")
    given = getattr(step, action, None)
    if action == "expect":
        action, given = next(
            (f"expect {key}", getattr(given, key))
            for key in Expect.__struct_fields__
            if getattr(given, key) is not None
        )
    words = _words(given)
    place = "" if step.device is None or action in ("run", "expect guest") else f"{step.device}: "
    return f"{place}{action} {words}".strip()


def _words(given: Any) -> str:
    if hasattr(given, "__struct_fields__"):
        named = {key: getattr(given, key) for key in given.__struct_fields__}
    elif isinstance(given, dict):
        named = given
    else:
        return str(given)
    shown = ((key, one) for key, one in named.items() if one not in (None, {}))
    return ", ".join(f"{key} {_number(key, one)}" for key, one in shown)


def _number(key: str, one: Any) -> str:
    if key == "address":
        return f"{one:#x}"
    return f"({_words(one)})" if isinstance(one, dict) else str(one)
