"""What is kept of the machine's apt configuration, and what is said when apt fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from softcxl.lab.apt import PrivateApt, acquire_settings, explain
from softcxl.lab.errors import FetchError, PartsError

CACHE = Path("/cache")

FAKE_APT = """\
#!/bin/sh
# what apt-get prints: status lines to the descriptor it was given, the listing to standard output
for word in "$@"; do
    case $word in APT::Status-Fd=*) fd=${word#*=} ;; esac
done
case "$*" in
*--print-uris*) echo "'http://m.example/pool/a_1_amd64.deb' a_1_amd64.deb 3 SHA256:00" ;;
*--download-only*)
    printf 'dlstatus:1:50.5:Retrieving file 1 of 2\\n' >"/proc/self/fd/$fd"
    eval "$APT_FAKE"
    ;;
*update*) eval "$APT_FAKE" ;;
esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins, the only one on PATH besides the system's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {
        "apt-get": FAKE_APT,
        "apt-config": "#!/bin/sh\necho 'Acquire::http::Proxy \"http://p.example:3128\";'\n",
        "dpkg-deb": "#!/bin/sh\n",
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("APT_FAKE", "")
    return folder


def test_only_acquire_settings_are_kept() -> None:
    dump = """\
APT::Architecture "amd64";
APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";
Acquire "";
Acquire::http::Proxy "http://p.example:3128";
Acquire::https::Verify-Peer "true";
Acquire::IndexTargets::deb::DEP-11::MetaKey "x";
Acquire::Languages:: "de";
Dir::Cache "var/cache/apt";
"""
    assert acquire_settings(dump) == (
        'Acquire::http::Proxy "http://p.example:3128";\nAcquire::https::Verify-Peer "true";\n'
    )


@pytest.mark.parametrize(
    ("complaints", "sentence"),
    [
        (
            "E: You don't have enough free space in /cache/apt/cache/archives/.",
            r"The disk that holds /cache is full",
        ),
        ("E: Write error - write (28: No space left on device)\n", r"The disk that holds /cache is full"),
        (
            (
                "W: Failed to fetch http://m.example/InRelease  Temporary failure resolving 'm.example'\n"
                "E: Some index files failed to download.\n"
            ),
            r"cannot be reached while fetching \(Some index files failed to download\): is there a network",
        ),
        ("E: Unable to locate package cxl\n", r"has no cxl: its mirror may be partial"),
        ("E: Package 'daxctl' has no installation candidate\n", r"has no daxctl:"),
        ("E: Something new.\n", r"apt-get failed while fetching: Something new\.$"),
        ("", r"apt-get failed while fetching: apt-get gave no reason\.$"),
    ],
)
def test_complaints_become_a_sentence(complaints: str, sentence: str) -> None:
    with pytest.raises(FetchError, match=sentence):
        raise FetchError(explain("fetching", complaints, CACHE))


def test_everything_is_written_below_its_folder(tools: Path, tmp_path: Path) -> None:
    home = tmp_path / "apt"
    PrivateApt(home, "Types: deb\n", "Package: *\n")
    configuration = (home / "apt.conf").read_text()
    places = [line.split('"')[1] for line in configuration.splitlines() if line.startswith("Dir::")]
    assert len(places) >= 9
    assert all(Path(place).is_relative_to(home) for place in places)
    assert (home / "sources" / "lab.sources").read_text() == "Types: deb\n"
    assert (home / "parts" / "50host").read_text() == 'Acquire::http::Proxy "http://p.example:3128";\n'


def test_download_reports_progress_and_names_the_files(
    tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = PrivateApt(tmp_path / "apt", "", "")
    monkeypatch.setenv("APT_FAKE", f"echo deb >{apt.archives}/a_1_amd64.deb")
    seen: list[tuple[str, float | None]] = []
    assert apt.download(["a"], lambda step, fraction=None: seen.append((step, fraction))) == [
        apt.archives / "a_1_amd64.deb"
    ]
    assert ("fetching packages", 0.505) in seen


def test_download_that_brings_nothing_is_noticed(tools: Path, tmp_path: Path) -> None:
    apt = PrivateApt(tmp_path / "apt", "", "")
    with pytest.raises(FetchError, match=r"these are absent: a_1_amd64\.deb"):
        apt.download(["a"])


def test_failure_of_apt(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APT_FAKE", "echo 'E: Unable to locate package qemu' >&2; exit 100")
    with pytest.raises(FetchError, match=r"has no qemu"):
        PrivateApt(tmp_path / "apt", "", "").update()


def test_no_apt_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PartsError, match=r"apt-get is not here.*install QEMU 10\.1 or later, cxl"):
        PrivateApt(tmp_path / "apt", "", "")


def test_folder_that_cannot_be_made(tools: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FetchError, match=r"cannot be written: Not a directory"):
        PrivateApt(tmp_path / "file" / "apt", "", "")
