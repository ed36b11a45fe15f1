"""What a device remembers without power, beside its media: a page of sections, one for each subject.

The page is JSON, replaced as a whole on every change, so that a process that is killed leaves the last complete one;
or whoever makes the device keeps its sections elsewhere, by a page of their own (`_keep`).
A subject puts its section before it changes itself: what cannot be kept has not happened.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from softcxl.memory.page import replace

T = TypeVar("T")

FORMAT = 1
"""Version of the page; another one is refused, not guessed at."""


class StateDamaged(ValueError):
    """The page cannot be read, or says what no device can have been. It is left as it is."""


class StatePage:
    """The page in the file `path`; None for a device that forgets with its process.

    Raises `StateDamaged` for a file that is there and is no such page.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.where = str(path)
        """What messages call it."""
        self._sections: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise StateDamaged(f"{path}: format {content['format']}, this version reads {FORMAT}")
            self._sections = {str(name): dict(section) for name, section in content["sections"].items()}
        except FileNotFoundError:
            return
        except StateDamaged:
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise StateDamaged(f"{path}: not the state of a device: {error!r}") from error

    @classmethod
    def of(cls, state: Path | StatePage | None) -> StatePage:
        """The page that a device is made with: its own, or that of a file."""
        return state if isinstance(state, StatePage) else cls(state)

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """All that is on the page, by section."""
        return dict(self._sections)

    def take(self, section: str, read: Callable[[dict[str, Any]], T]) -> T | None:
        """What `read` makes of a section; None where it was never put. Raises `StateDamaged` where `read` fails."""
        found = self._sections.get(section)
        if found is None:
            return None
        try:
            return read(found)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise StateDamaged(f"{self.where}: {section} cannot have been: {error!r}") from error

    def put(self, section: str, **content: Any) -> None:
        """Keep `content`, of JSON values, as the section. On disk when this returns; raises `OSError`, and then the
        page is as it was."""
        if self._sections.get(section) == content:
            return
        self._keep(section, content)
        self._sections = self._sections | {section: content}

    def _keep(self, section: str, content: dict[str, Any]) -> None:
        """Bring the section to where it outlives the process, or raise `OSError`."""
        if self.path is not None:
            sections = self._sections | {section: content}
            replace(self.path, json.dumps({"format": FORMAT, "sections": sections}, indent=1) + "\n")
