"""A kernel of one's own: its configuration, and what is said when it cannot be built. The build itself is a guest
test's to wait for."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from softcxl.lab import kernel, toolchain
from softcxl.lab.errors import BuildError, FetchError

# what the kernel's own Kconfig files call the parts that a stock kernel of Debian lacks
# (drivers/cxl/Kconfig, drivers/edac/Kconfig, drivers/fwctl/Kconfig, net/mctp/Kconfig of Linux 7.2)
BEYOND_STOCK = (
    *("CXL_MEM_RAW_COMMANDS", "CXL_FEATURES", "CXL_PMU", "CXL_REGION_INVALIDATION_TEST", "FWCTL", "MCTP"),
    *("CXL_EDAC_SCRUB", "CXL_EDAC_ECS", "CXL_EDAC_MEM_REPAIR"),
)


def test_the_fragment_asks_for_what_stock_kernels_lack() -> None:
    lines = kernel.fragment().splitlines()
    assert [name for name in BEYOND_STOCK if f"CONFIG_{name}=y" not in lines] == []


def test_a_fragment_of_ones_own_comes_last(tmp_path: Path) -> None:
    own = tmp_path / "mine"
    own.write_text("CONFIG_SMP=n\n")
    assert kernel.fragment(own).splitlines()[-1] == "CONFIG_SMP=n"
    with pytest.raises(BuildError, match="gone cannot be read"):
        kernel.fragment(tmp_path / "gone")


@pytest.mark.parametrize(
    ("wanted", "given", "lost"),
    [
        ("CONFIG_CXL_BUS=y", "CONFIG_CXL_BUS=y\n", []),
        ("CONFIG_CXL_BUS=y", "CONFIG_CXL_BUS=m\n", ["CONFIG_CXL_BUS=y"]),
        ("CONFIG_CXL_PMU=y", "# CONFIG_CXL_PMU is not set\n", ["CONFIG_CXL_PMU=y"]),
        ("CONFIG_MODULES=n", "# CONFIG_MODULES is not set\n", []),
        ("CONFIG_MODULES=n", "CONFIG_MODULES=y\n", ["CONFIG_MODULES=n"]),
        ("CONFIG_SMP=y\nCONFIG_SMP=n", "CONFIG_SMP=y\n", ["CONFIG_SMP=n"]),
    ],
)
def test_what_a_configuration_lost(wanted: str, given: str, lost: list[str]) -> None:
    assert kernel.unmet(wanted, given) == lost


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("SOFTCXL_CACHE", str(folder))
    monkeypatch.setattr(toolchain, "missing", list)
    return folder


def tree(folder: Path, makefile: str) -> Path:
    """A source tree as far as `build` looks: a makefile, and the script that merges configurations."""
    (folder / "scripts/kconfig").mkdir(parents=True)
    merge = folder / "scripts/kconfig/merge_config.sh"
    merge.write_text('#!/bin/sh\ncat "$5" > "$3/.config"\n')
    merge.chmod(0o755)
    (folder / "Makefile").write_text(makefile)
    return folder


GOOD = """\
tinyconfig olddefconfig:
\t@touch $(O)/.config
bzImage:
\tmkdir -p $(O)/arch/x86/boot
\tcp image $(O)/arch/x86/boot/bzImage
"""


def bzimage(release: bytes) -> bytes:
    """As Documentation/arch/x86/boot.rst has it: "HdrS" at 0x202, and at 0x20e where the version is."""
    head = bytearray(0x300)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x80)
    head[0x280 : 0x280 + len(release)] = release
    return bytes(head)


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_a_build_is_kept(cache: Path, tmp_path: Path) -> None:
    source = tree(tmp_path / "linux", GOOD)
    (source / "image").write_bytes(bzimage(b"9.9.9 (someone)"))
    steps: list[str] = []
    made = kernel.build(lambda step, share=None: steps.append(step), source=source, jobs=1)
    assert (made.release, made.modules, made.origin) == ("9.9.9", None, "built")
    assert made.image.is_relative_to(cache)
    assert "CONFIG_CXL_BUS=y" in made.image.with_name("config").read_text()
    assert "compiling the kernel" in steps
    assert kernel.built() == made
    # without a source of one's own the one in the cache is taken
    assert kernel.build() == made


@needs_make
def test_a_build_that_fails_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    source = tree(
        tmp_path / "linux", GOOD.replace("\tcp image", "\t@echo x.c:1: error: no such thing; false")
    )
    with pytest.raises(BuildError, match=r"make failed: .*x\.c:1: error: no such thing"):
        kernel.build(source=source, jobs=1)
    assert kernel.built() is None
    assert list((cache / "own-kernels").iterdir()) == []


@needs_make
def test_an_option_this_kernel_has_not(cache: Path, tmp_path: Path) -> None:
    source = tree(tmp_path / "linux", GOOD.replace("@touch", "@sed -i /CONFIG_CXL_PMU/d $(O)/.config; touch"))
    with pytest.raises(BuildError, match="cannot have CONFIG_CXL_PMU=y"):
        kernel.build(source=source, jobs=1)


def test_a_folder_that_is_no_source(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"{tmp_path} is not a kernel source tree"):
        kernel.build(source=tmp_path)


def test_a_full_disk(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5 << 20))
    with pytest.raises(FetchError, match="has 5 MB free and 3072 MB are needed"):
        kernel.build()


def test_what_is_missing_is_named_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None if tool in ("flex", "gcc") else f"/usr/bin/{tool}")
    assert toolchain.missing() == ["flex", "gcc", "libc6-dev", "libelf-dev", "libssl-dev"]


def test_unpacked_packages_without_libraries(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="hold no libraries"):
        toolchain.unpacked(tmp_path, ["flex"])
