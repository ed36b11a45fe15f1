"""Apt's two source formats, with what people and installers really write in them (sources.list(5))."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcxl.lab.errors import PartsError
from softcxl.lab.sources import (
    Release,
    Source,
    archives,
    parse_deb822,
    parse_list,
    parse_os_release,
    read_sources,
)

BOOKWORM = Release("debian", (), "bookworm")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "deb http://mirror.example/debian bookworm main contrib",
            Source("http://mirror.example/debian", ("bookworm",), ("main", "contrib")),
        ),
        (
            "  deb\t[ arch=amd64  signed-by=/etc/key.gpg ]\thttp://mirror.example/debian  bookworm  main # ours",
            Source("http://mirror.example/debian", ("bookworm",), ("main",), signed_by="/etc/key.gpg"),
        ),
        (
            "deb [trusted=yes check-valid-until=no] file:/srv/mirror bookworm main",
            Source("file:/srv/mirror", ("bookworm",), ("main",), trusted=True, check_valid_until=False),
        ),
        (
            "deb mirror+file:/etc/apt/mirrors/debian.list bookworm main",
            Source("mirror+file:/etc/apt/mirrors/debian.list", ("bookworm",), ("main",)),
        ),
        ("deb http://mirror.example/flat ./", Source("http://mirror.example/flat", ("./",), ())),
    ],
)
def test_one_line(line: str, expected: Source) -> None:
    assert list(parse_list(line)) == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# deb http://mirror.example/debian bookworm main",
        "deb-src http://mirror.example/debian bookworm main",
        "deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 NETINST]/ bookworm main",
        "deb http://mirror.example/debian",
        "deb [arch=amd64]",
    ],
)
def test_one_line_without_a_source(line: str) -> None:
    assert list(parse_list(line)) == []


def test_deb822() -> None:
    text = """\
# See sources.list(5)
Types: deb deb-src
URIs: http://one.example/debian
# a comment between fields
 http://two.example/debian/
Suites: bookworm
 bookworm-updates
Components: main non-free-firmware
Signed-By: /usr/share/keyrings/archive.gpg
X-Repolib-Name: Ours


Types: deb-src
URIs: http://three.example/debian
Suites: bookworm
Components: main

ENABLED: no
Types: deb
URIs: http://four.example/debian
Suites: bookworm
Components: main
"""
    suites, components = ("bookworm", "bookworm-updates"), ("main", "non-free-firmware")
    keyring = "/usr/share/keyrings/archive.gpg"
    assert list(parse_deb822(text)) == [
        Source("http://one.example/debian", suites, components, keyring),
        Source("http://two.example/debian/", suites, components, keyring),
    ]


def test_embedded_key_survives() -> None:
    text = """\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr
 -----END PGP PUBLIC KEY BLOCK-----
"""
    (source,) = parse_deb822(text)
    assert list(parse_deb822(source.stanza(source.suites, source.components))) == [source]
    assert source.signed_by is not None
    assert "\n .\n" in source.signed_by


def test_stanza_for_other_suites() -> None:
    source = Source("http://m.example/debian", ("bookworm",), ("main",), "/k.gpg", trusted=True)
    assert source.stanza(["trixie", "forky"], ["main", "contrib"]) == (
        "Types: deb\nURIs: http://m.example/debian\nSuites: trixie forky\nComponents: main contrib\n"
        "Signed-By: /k.gpg\nTrusted: yes\n"
    )


def test_folder_is_read_in_order(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    (parts / "b.list").write_text("deb http://b.example/debian bookworm main\n")
    (parts / "c.sources").write_text(
        "Types: deb\nURIs: http://c.example/debian\nSuites: sid\nComponents: main\n"
    )
    (parts / "d.list.save").write_text("deb http://d.example/debian bookworm main\n")
    assert [source.uri[7] for source in read_sources(tmp_path)] == ["a", "b", "c"]
    assert read_sources(tmp_path / "absent") == []


def test_own_archive_comes_first_and_strangers_not_at_all() -> None:
    sources = [
        *parse_list("deb https://packages.example/cloud cloud-sdk-bookworm main"),
        *parse_list("deb https://packages.example/node nodistro main"),
        *parse_list("deb https://third.example/linux bookworm main"),
        *parse_list("deb http://security.example/debian-security bookworm-security main"),
        *parse_list("deb http://mirror.example/debian bookworm main"),
        *parse_list("deb http://mirror.example/debian bookworm-updates main"),
        *parse_list("deb http://mirror.example/debian bookworm contrib"),
    ]
    assert [source.uri for source in archives(sources, BOOKWORM)] == [
        "http://mirror.example/debian",
        "https://third.example/linux",
    ]


def test_the_keyring_tells_an_archive_with_any_path() -> None:
    sources = [
        *parse_list("deb https://third.example/debian bookworm main"),
        *parse_list(
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.example/x bookworm main"
        ),
    ]
    found = archives(sources, BOOKWORM)
    assert {source.uri for source in found} == {"https://third.example/debian", "http://m.example/x"}


def test_suites_by_their_other_names() -> None:
    (found,) = archives(
        parse_list("deb http://m.example/debian testing main"), Release("debian", (), "forky")
    )
    assert found.uri == "http://m.example/debian"


def test_no_archive_is_a_sentence() -> None:
    with pytest.raises(PartsError, match=r"no source for the archive of debian bookworm: add one"):
        archives([], BOOKWORM)


@pytest.mark.parametrize(
    ("text", "family", "codename"),
    [
        ("ID=debian\nVERSION_CODENAME=bookworm\n", "debian", "bookworm"),
        (
            'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\n',
            "ubuntu",
            "wilma",
        ),
        ("ID='fedora'\n", "fedora", ""),
        ("", "", ""),
    ],
)
def test_os_release(text: str, family: str, codename: str) -> None:
    release = parse_os_release(text)
    assert (release.family, release.codename) == (family, codename)
