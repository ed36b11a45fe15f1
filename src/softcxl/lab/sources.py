"""Package sources of this machine, as its own apt configuration states them.

Both of apt's formats are read (sources.list(5)): one line per source, and deb822 stanzas. Nothing but the
addresses, keys and trust settings of the distribution's own archive is taken: third-party sources and the
security archive cannot serve the suites the lab needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from softcxl.lab.errors import PartsError

_WORD = re.compile(r"\[[^\]]*\]|\S+")
_TRUE = frozenset({"yes", "true", "with", "on", "enable", "1"})
_FALSE = frozenset({"no", "false", "without", "off", "disable", "0"})


@dataclass(frozen=True)
class Source:
    """One archive address with what apt was told about it.

    `signed_by` is a keyring path, a fingerprint or a whole armoured key (several lines), None for apt's
    global trust. `trusted` is None where apt was told nothing.
    """

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str | None = None
    trusted: bool | None = None
    check_valid_until: bool | None = None

    def stanza(self, suites: Sequence[str], components: Sequence[str]) -> str:
        """A deb822 stanza for other `suites` and `components` of the same archive."""
        lines = [
            "Types: deb",
            f"URIs: {self.uri}",
            f"Suites: {' '.join(suites)}",
            f"Components: {' '.join(components)}",
        ]
        if self.signed_by is not None:
            lines.append("Signed-By:" + ("" if self.signed_by.startswith("\n") else " ") + self.signed_by)
        if self.trusted is not None:
            lines.append(f"Trusted: {'yes' if self.trusted else 'no'}")
        if self.check_valid_until is not None:
            lines.append(f"Check-Valid-Until: {'yes' if self.check_valid_until else 'no'}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Release:
    """Which distribution this machine runs: os-release's ID, ID_LIKE and VERSION_CODENAME."""

    id: str
    like: tuple[str, ...]
    codename: str

    @property
    def family(self) -> str:
        """ "ubuntu" or "debian" for either and their derivatives, else the bare id."""
        for name in (self.id, *self.like):
            if name in ("ubuntu", "debian"):
                return name
        return self.id


def parse_os_release(text: str) -> Release:
    """Read os-release(5)."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = value.strip().strip("\"'")
    return Release(
        found.get("ID", ""), tuple(found.get("ID_LIKE", "").split()), found.get("VERSION_CODENAME", "")
    )


def parse_list(text: str) -> Iterator[Source]:
    """Read the one-line format: `deb [option=value ...] uri suite [component ...]`."""
    for line in text.splitlines():
        words = _WORD.findall(line.partition("#")[0])
        if len(words) < 3 or words[0] != "deb":
            continue
        options: dict[str, str] = {}
        rest = words[1:]
        if rest[0].startswith("["):
            for option in rest.pop(0)[1:-1].split():
                key, _, value = option.partition("=")
                options[key.lower()] = value
        # cdrom addresses hold brackets and blanks and are of no use here
        if len(rest) < 2 or rest[0].startswith("cdrom:"):
            continue
        yield Source(
            uri=rest[0],
            suites=(rest[1],),
            components=tuple(rest[2:]),
            signed_by=options.get("signed-by") or None,
            trusted=_truth(options.get("trusted")),
            check_valid_until=_truth(options.get("check-valid-until")),
        )


def parse_deb822(text: str) -> Iterator[Source]:
    """Read the deb822 format: stanzas of `Field: value`, with comments and folded lines anywhere."""
    for stanza in _stanzas(text):
        if "deb" not in stanza.get("types", "").split() or _truth(stanza.get("enabled")) is False:
            continue
        signed_by = stanza.get("signed-by", "")
        source = Source(
            uri="",
            suites=tuple(stanza.get("suites", "").split()),
            components=tuple(stanza.get("components", "").split()),
            # an embedded key keeps its folding, a path does not
            signed_by=(signed_by if "BEGIN PGP" in signed_by else signed_by.strip()) or None,
            trusted=_truth(stanza.get("trusted")),
            check_valid_until=_truth(stanza.get("check-valid-until")),
        )
        for uri in stanza.get("uris", "").split():
            if not uri.startswith("cdrom:"):
                yield replace(source, uri=uri)


def read_sources(folder: Path = Path("/etc/apt")) -> list[Source]:
    """Every enabled binary source below an apt configuration folder, in apt's order; unreadable files are skipped."""
    found: list[Source] = []
    parts = sorted((folder / "sources.list.d").glob("*")) if (folder / "sources.list.d").is_dir() else []
    for path in (folder / "sources.list", *parts):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".list":
            found += parse_list(text)
        elif path.suffix == ".sources":
            found += parse_deb822(text)
    return found


def archives(sources: Iterable[Source], release: Release) -> list[Source]:
    """The sources that look like the distribution's own archive, likeliest first.

    Raises:
        PartsError: none does.
    """
    aliases = {release.codename, "stable", "testing", "unstable", "sid"}
    own = [
        source
        for source in sources
        if "main" in source.components
        and "security" not in source.uri
        and any(
            suite.split("-")[0].split("/")[0] in aliases and "security" not in suite
            for suite in source.suites
        )
    ]
    unique = list({(source.uri, source.signed_by): source for source in reversed(own)}.values())[::-1]
    if not unique:
        raise PartsError(
            f"apt on this machine has no source for the archive of {release.id or 'its distribution'}"
            f" {release.codename}: add one to /etc/apt/sources.list.d, or install the parts by hand."
        )
    return sorted(unique, key=lambda source: not _official(source, release))


def _official(source: Source, release: Release) -> bool:
    keyring = f"{release.family}-archive" in (source.signed_by or "")
    return keyring or source.uri.rstrip("/").endswith(f"/{release.family}")


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    stanza: dict[str, str] = {}
    field = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza, field = {}, ""
        elif line[0] in " \t":
            if field:
                stanza[field] += "\n" + line
        else:
            field, _, value = line.partition(":")
            field = field.strip().lower()
            stanza[field] = value.strip()


def _truth(word: str | None) -> bool | None:
    lowered = (word or "").strip().lower()
    return True if lowered in _TRUE else False if lowered in _FALSE else None
