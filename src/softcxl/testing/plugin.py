"""A pytest plugin: a CXL fabric for a test, closed after it.

::

    @pytest.mark.cxl_topology("two-devices.yaml")
    def test_hello(cxl_system):
        region = cxl_system.create_region(type="ram")
        region.write(0, b"hello")
        assert region.read(0, 5) == b"hello"

pytest finds it by itself where SoftCXL is installed (entry point ``pytest11``); where it is not, ``-p
softcxl.testing.plugin`` or ``pytest_plugins = ["softcxl.testing.plugin"]`` in a conftest.py does the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Every pytest run on a machine with SoftCXL loads this file: the rest is imported when a test asks for it.
if TYPE_CHECKING:
    from softcxl.fabric.build import Fabric
    from softcxl.fabric.keys import Topology
    from softcxl.host.system import System

__all__ = ["cxl_fabric", "cxl_system", "cxl_topology"]

_MARK = "cxl_topology"
_USAGE = (
    "which topology? Mark the test with @pytest.mark.cxl_topology(FILE or YAML text), parametrize `cxl_topology`,"
    " or define a fixture of that name"
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, also to ``--strict-markers``."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(topology, host=None): the fabric of this test, a topology file or YAML text,"
        " and which of its hosts cxl_system boots",
    )


@pytest.fixture
def cxl_topology(request: pytest.FixtureRequest) -> str | Path:
    """The topology of the test: what its marker says. Parametrize it, or define your own, for another way."""
    mark = request.node.get_closest_marker(_MARK)
    if mark is None or not mark.args:
        pytest.fail(_USAGE, pytrace=False)
    given: str | Path = mark.args[0]
    return given


@pytest.fixture
def cxl_fabric(request: pytest.FixtureRequest, cxl_topology: str | Path, tmp_path: Path) -> Iterator[Fabric]:
    """A live `softcxl.Fabric` of `cxl_topology`, for one test.

    A file is looked for beside the test and in pytest's root folder. What the fabric keeps in `state` is in a folder
    of this test alone. A topology that does not hold fails the test with a line for each problem.
    """
    from softcxl.fabric import topology
    from softcxl.fabric.build import Fabric
    from softcxl.fabric.errors import SoftCXLError

    try:
        if _is_text(cxl_topology):
            folder, given = tmp_path, topology.loads(str(cxl_topology))
        else:
            path = _found(Path(cxl_topology), request)
            folder, given = path.parent, topology.load(path)
        fabric = Fabric(_private(given, tmp_path), folder=folder)
    except SoftCXLError as error:
        pytest.fail(str(error), pytrace=False)
    with fabric:
        yield fabric


@pytest.fixture
def cxl_system(request: pytest.FixtureRequest, cxl_fabric: Fabric) -> System:
    """An operating system, `softcxl.host.system.System`, booted on a host of `cxl_fabric`: the first, or the
    marker's `host`."""
    mark = request.node.get_closest_marker(_MARK)
    names = list(cxl_fabric.hosts)
    name = (mark.kwargs.get("host") if mark else None) or next(iter(names), None)
    if name not in cxl_fabric.hosts:
        wanted = "the topology has no host" if name is None else f"{name} is no host of the topology"
        pytest.fail(f"{wanted}; there are {', '.join(names) or 'none'}", pytrace=False)
    return cxl_fabric.hosts[name].boot()


def _is_text(given: str | Path) -> bool:
    """Whether it is YAML itself: that has a colon with white space after it, which no sane path has."""
    return isinstance(given, str) and ("\n" in given or ": " in given)


def _found(path: Path, request: pytest.FixtureRequest) -> Path:
    places = [request.path.parent, request.config.rootpath]
    for place in places:
        if (place / path).exists():
            return place / path
    pytest.fail(f"topology {path} is neither in {' nor in '.join(map(str, places))}", pytrace=False)


def _private(given: Topology, folder: Path) -> Topology:
    """The topology with its `state`, if it has one, in a folder of its own: tests do not see what others left."""
    if given.state is None:
        return given
    fields = {name: getattr(given, name) for name in given.__struct_fields__}
    return type(given)(**fields | {"state": str(folder / "state")})
