"""Setup as a whole, with stand-ins for apt and dpkg: what it fetches, keeps, resumes and says."""

from __future__ import annotations

import platform
import shutil
from collections import namedtuple
from importlib import import_module
from pathlib import Path

import pytest

from softcxl.lab import parts, sources
from softcxl.lab.errors import FetchError, PartsError
from softcxl.lab.recipe import DEBIAN, UBUNTU, recipe_for
from softcxl.lab.sources import Release, Source
from tests.lab.bzimages import bzimage

# by import_module, because in the package the name is the function's
lab = import_module("softcxl.lab.setup")

ARCHIVE = Source("http://m.example/debian", ("bookworm",), ("main",))
BOOKWORM = Release("debian", (), "bookworm")

# counts its calls, and leaves a package for each name after `install`
APT_GET = """\
#!/bin/sh
echo "$*" >>"$CALLS"
cache=$(sed -n 's/^Dir::Cache "\\(.*\\)";/\\1/p' "$APT_CONFIG")/archives
seen=
for word in "$@"; do
    if [ "$word" = install ]; then seen=1; continue; fi
    case $word in -*|APT::*) continue ;; esac
    [ "$seen" ] || continue
    case "$*" in
    *--print-uris*) echo "'http://m.example/$word.deb' ${word}_1_amd64.deb 3 SHA256:00" ;;
    *) [ -e "$cache/${word}_1_amd64.deb" ] || echo "$word" >"$cache/${word}_1_amd64.deb" ;;
    esac
done
"""

# "unpacks" a package by copying the folder of its name
DPKG_DEB = """\
#!/bin/sh
name=$(cat "$2")
[ -e "$TREES/$name.broken" ] && { echo "dpkg-deb: error: archive is damaged" >&2; exit 2; }
[ -d "$TREES/$name" ] && cp -r "$TREES/$name/." "$3"
exit 0
"""


class Bench:
    """A machine with nothing on it, and an archive with everything."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.trees = folder / "bin", folder / "trees"
        self.cache, self.calls = folder / "cache", folder / "calls"
        self.write(self.bin / "apt-get", APT_GET)
        self.write(self.bin / "apt-config", "#!/bin/sh\n")
        self.write(self.bin / "dpkg-deb", DPKG_DEB)
        qemu = self.trees / "qemu-system-x86"
        self.write(qemu / "usr/lib64/ld-linux-x86-64.so.2", '#!/bin/sh\nshift 2\nexec "$@"\n')
        self.write(
            qemu / "usr/bin/qemu-system-x86_64",
            "#!/bin/sh\n[ $1 = -version ] && echo QEMU emulator version 11.1.3 || echo vfio-user-pci options:\n",
        )
        self.write(qemu / "usr/share/doc/qemu/big", "")
        modules = self.trees / "linux-image-amd64/usr/lib/modules/7.2.12"
        self.write(modules / "kernel/drivers/cxl/cxl_pci.ko", "")
        (modules / "vmlinuz").write_bytes(bzimage(b"", b"7.2.12"))
        for name in ("cxl", "daxctl", "ndctl"):
            self.write(self.trees / name / "usr/bin" / name, "")
        self.write(self.trees / "busybox-static/usr/bin/busybox", "")
        self.write(self.trees / "e2fsprogs/usr/sbin/mkfs.ext4", "")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def downloads(self) -> int:
        return self.calls.read_text().count("--download-only") if self.calls.exists() else 0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    one = Bench(tmp_path)
    monkeypatch.setenv("PATH", f"{one.bin}:/usr/bin:/bin")
    monkeypatch.setenv("SOFTCXL_CACHE", str(one.cache))
    monkeypatch.setenv("CALLS", str(one.calls))
    monkeypatch.setenv("TREES", str(one.trees))
    for name in ("SOFTCXL_QEMU", "SOFTCXL_KERNEL"):
        monkeypatch.delenv(name, raising=False)

    def absent() -> None:
        raise PartsError("not on this system.")

    def tools(root: Path, origin: str) -> parts.Tools:
        if root == Path("/"):
            absent()
        return parts.find_tools(root, origin)

    monkeypatch.setattr(lab, "system_qemu", absent)
    monkeypatch.setattr(lab, "system_kernel", absent)
    monkeypatch.setattr(lab, "find_tools", tools)
    monkeypatch.setattr(lab, "read_sources", lambda: [ARCHIVE])
    monkeypatch.setattr(lab, "this_release", lambda: BOOKWORM)
    return one


def test_everything_is_fetched_once(bench: Bench) -> None:
    assert lab.status().missing == ("qemu", "kernel", "tools")
    steps: list[str] = []
    found = lab.setup(lambda step, _=None: steps.append(step)).parts()
    assert found.qemu.version == (11, 1, 3)
    assert found.kernel.release == "7.2.12"
    assert set(found.tools.programs) == set(parts.PROGRAMS)
    assert list(dict.fromkeys(steps)) == [
        "reading package lists",
        "choosing packages",
        "fetching packages",
        "unpacking packages",
        "checking what was unpacked",
    ]
    assert bench.downloads() == 3
    lab.setup()
    assert bench.downloads() == 3
    # neither packages nor lists nor manuals are kept
    assert not (bench.cache / "apt").exists()
    assert not (lab.fetched("qemu") / "usr/share/doc").exists()


def test_only_what_is_missing_is_fetched(bench: Bench) -> None:
    lab.setup()
    shutil.rmtree(lab.fetched("tools"))
    assert lab.status().missing == ("tools",)
    lab.setup()
    assert bench.downloads() == 4


def test_damaged_part_is_fetched_again(bench: Bench) -> None:
    lab.setup()
    (lab.fetched("qemu") / "usr/bin/qemu-system-x86_64").unlink()
    assert lab.status().missing == ("qemu",)
    assert not lab.setup().missing


def test_a_failure_leaves_nothing_half_done_and_packages_for_the_next_time(bench: Bench) -> None:
    (bench.trees / "linux-image-amd64.broken").write_text("")
    with pytest.raises(
        FetchError, match=r"linux-image-amd64_1_amd64\.deb could not be unpacked: .*archive is damaged"
    ):
        lab.setup()
    assert [path.name for path in (bench.cache / "parts").iterdir()] == ["qemu"]
    # the damaged package is gone, the others need not be fetched again
    kept = {path.name for path in (bench.cache / "apt/cache/archives").glob("*.deb")}
    assert "cxl_1_amd64.deb" in kept
    assert "linux-image-amd64_1_amd64.deb" not in kept
    (bench.trees / "linux-image-amd64.broken").unlink()
    assert not lab.setup().missing


def test_packages_without_what_is_wanted(bench: Bench) -> None:
    shutil.rmtree(bench.trees / "linux-image-amd64/usr/lib/modules/7.2.12/kernel/drivers")
    with pytest.raises(PartsError, match=r"The fetched kernel 7\.2\.12 has no CXL modules"):
        lab.setup()
    assert not lab.fetched("kernel").exists()


def test_full_disk_is_noticed_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1 << 40, 1 << 40, 300 << 20))
    with pytest.raises(
        FetchError, match=r"has 300 MB free and 1024 MB are needed: free some, or point SOFTCXL_CACHE"
    ):
        lab.setup()
    assert bench.downloads() == 0


def test_other_processors(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(PartsError, match=r"This machine is aarch64; the lab knows x86_64 packages only"):
        lab.setup()


def test_missing_parts_say_what_to_do(bench: Bench) -> None:
    with pytest.raises(PartsError, match=r"qemu: missing\. not on this system\.;.*Run `softcxl lab setup`"):
        lab.status().parts()


def test_a_kernel_of_ones_own(bench: Bench, tmp_path: Path) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(bzimage(b"", b"7.2.0-mine"))
    found = lab.setup(kernel=image)
    assert bench.downloads() == 2
    assert found.parts().kernel.release == "7.2.0-mine"
    with pytest.raises(PartsError, match=r"/gone cannot be read"):
        lab.status(tmp_path / "gone")


def test_the_next_archive_is_tried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    picky = """\
#!/bin/sh
grep -q third.example "$(dirname "$APT_CONFIG")/sources/lab.sources" || { echo E: nothing here >&2; exit 100; }
"""
    bench.write(bench.bin / "apt-get", picky + APT_GET)
    third = Source("http://third.example/debian", ("bookworm",), ("main",))
    monkeypatch.setattr(lab, "read_sources", lambda: [ARCHIVE, third])
    assert not lab.setup().missing
    monkeypatch.setattr(lab, "read_sources", lambda: [ARCHIVE])
    shutil.rmtree(bench.cache / "parts")
    with pytest.raises(FetchError, match=r"apt-get failed while reading package lists: nothing here"):
        lab.setup()


def test_recipes() -> None:
    assert recipe_for(BOOKWORM) is DEBIAN
    assert recipe_for(Release("linuxmint", ("ubuntu", "debian"), "wilma")) is UBUNTU
    with pytest.raises(PartsError, match=r"on Debian, Ubuntu and their derivatives, and this is fedora"):
        recipe_for(Release("fedora", (), ""))
    assert DEBIAN.names(["tools", "qemu"])[:2] == ["qemu-system-x86", "cxl"]
    assert "Suites: trixie trixie-backports forky\n" in DEBIAN.sources(ARCHIVE)


def test_this_machines_release() -> None:
    assert sources.parse_os_release(Path("/etc/os-release").read_text()) == lab.this_release()
