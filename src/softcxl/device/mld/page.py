"""The state of a logical device, as a section of its device's page."""

from __future__ import annotations

from typing import Any

from softcxl.device.persist import StatePage


class LdPage(StatePage):
    """The page of a logical device, in the section `name` of the page of the whole device."""

    def __init__(self, whole: StatePage, name: str) -> None:
        super().__init__()
        self._whole, self._name = whole, name
        self._sections = (
            whole.take(name, lambda kept: {str(one): dict(content) for one, content in kept.items()}) or {}
        )

    def put(self, section: str, **content: Any) -> None:
        if self._sections.get(section) == content:
            return
        sections = self._sections | {section: content}
        self._whole.put(self._name, **sections)
        self._sections = sections

    def clear(self) -> None:
        """Forget all, as a new logical device has nothing to remember. Raises `OSError`, and then all is there."""
        if self._sections:
            self._whole.put(self._name)
        self._sections = {}
