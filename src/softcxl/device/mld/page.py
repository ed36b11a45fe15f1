"""The state of a logical device, as a section of its device's page."""

from __future__ import annotations

from typing import Any

from softcxl.device.persist import StatePage


class LdPage(StatePage):
    """The page of a logical device, in the section `name` of the page of the whole device."""

    def __init__(self, whole: StatePage, name: str) -> None:
        super().__init__()
        self.where = f"{whole.where}: {name}"
        self._whole, self._name, self._retired = whole, name, False
        self._sections = whole.take(name, _sections) or {}

    def _keep(self, section: str, content: dict[str, Any]) -> None:
        if not self._retired:
            self._whole.put(self._name, **(self._sections | {section: content}))

    def clear(self) -> None:
        """Forget all, as a new logical device has nothing to remember. Raises `OSError`, and then all is there."""
        if self._sections:
            self._whole.put(self._name)
        self._sections = {}

    def retire(self) -> None:
        """Keep nothing any more: the section is another logical device's."""
        self._retired = True


def _sections(kept: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: dict(content) for name, content in kept.items()}
