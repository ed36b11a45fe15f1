"""Which packages a guest is made of, for each family of distributions.

The lab takes fixed suites of the distribution's archive and not the machine's own: QEMU speaks vfio-user since
10.1 and the CXL tools follow the kernel closely, while the machine may run any older release.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from softcxl.lab.errors import PartsError
from softcxl.lab.sources import Release, Source

GROUPS = ("qemu", "kernel", "tools")


@dataclass(frozen=True)
class Recipe:
    """Suites, components and apt_preferences(5) to ask an archive for, and the packages of each group."""

    suites: tuple[str, ...]
    components: tuple[str, ...]
    preferences: str
    packages: dict[str, tuple[str, ...]]
    kernel_sources: tuple[str, ...]
    """Packages of kernel sources for a kernel of one's own; the first that the archive has is taken."""

    def names(self, groups: Iterable[str]) -> list[str]:
        """The packages of some of GROUPS, in a fixed order."""
        chosen = set(groups)
        return [name for group in GROUPS if group in chosen for name in self.packages[group]]

    def sources(self, archive: Source) -> str:
        """The deb822 source list that offers the recipe's suites from `archive`."""
        return archive.stanza(self.suites, self.components)


DEBIAN = Recipe(
    suites=("trixie", "trixie-backports", "forky"),
    components=("main",),
    # forky only for the tools it alone has new enough: everything else stays with one libc
    preferences="""\
Package: *
Pin: release n=forky
Pin-Priority: 100

Package: qemu-* linux-* seabios
Pin: release n=trixie-backports
Pin-Priority: 900

Package: cxl daxctl ndctl libcxl* libdaxctl* libndctl*
Pin: release n=forky
Pin-Priority: 900
""",
    packages={
        "qemu": ("qemu-system-x86",),
        "kernel": ("linux-image-amd64",),
        "tools": ("cxl", "daxctl", "ndctl", "busybox-static", "e2fsprogs", "tcc"),
    },
    # the release that the tests' listings are of, for as long as there is one
    kernel_sources=("linux-source-7.2", "linux-source"),
)

UBUNTU = Recipe(
    suites=("resolute", "resolute-updates"),
    components=("main", "universe"),
    preferences="",
    packages={
        "qemu": ("qemu-system-x86",),
        "kernel": ("linux-image-generic",),
        "tools": ("cxl", "daxctl", "ndctl", "busybox-static", "e2fsprogs", "tcc"),
    },
    kernel_sources=("linux-source",),
)


def recipe_for(release: Release) -> Recipe:
    """The recipe for a distribution. Raises PartsError for one without apt archives the lab knows."""
    match release.family:
        case "debian":
            return DEBIAN
        case "ubuntu":
            return UBUNTU
    raise PartsError(
        f"The lab can fetch packages on Debian, Ubuntu and their derivatives, and this is {release.id or 'neither'}:"
        " install QEMU 10.1 or later, cxl, daxctl, ndctl, a static busybox and mkfs.ext4,"
        " and name a kernel with --kernel."
    )
