"""The pytest plugin, in pytest runs of its own."""

import re
import tomllib
from pathlib import Path

import pytest

# Here first: a run within this one forgets what it has imported, and numpy cannot be imported twice.
import softcxl.fabric.build  # noqa: F401

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
TOPOLOGY = """
devices: {mem0: {volatile: 256MiB, serial: 5}}
hosts:
  alpha: {bridges: {hb0: {ports: [mem0]}}, windows: [{size: 256MiB, targets: [hb0]}]}
  beta: {bridges: {hb0: {ports: [null]}}}
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Run the text as a test file; other plugins of this environment stay out."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (pytester.path / "fabric.yaml").write_text(TOPOLOGY)

    def test(text, *arguments):
        pytester.makepyfile(text)
        return pytester.runpytest_inprocess("-p", "softcxl.testing.plugin", "--strict-markers", *arguments)

    return test


PAGE = (ROOT / "docs/howto/test-with-pytest.md").read_text()


@pytest.mark.parametrize(
    ("block", "passed"),
    list(zip(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), (1, 1, 4, 1), strict=True)),
)
def test_what_the_page_says(run, pytester, block, passed):
    (pytester.path / "two-devices.yaml").write_text((ROOT / "examples/two-devices.yaml").read_text())
    run(block).assert_outcomes(passed=passed)


def test_the_fabric_is_closed_after_the_test_even_where_that_fails(run):
    result = run(
        """
        import pytest
        seen = []

        @pytest.mark.cxl_topology("fabric.yaml")
        def test_first(cxl_fabric):
            seen.append(cxl_fabric)
            assert not cxl_fabric.devices

        @pytest.mark.cxl_topology("fabric.yaml")
        def test_second(cxl_fabric):
            assert seen[0].devices == {}
            assert cxl_fabric is not seen[0]
            assert cxl_fabric.devices["mem0"].serial == 5
        """
    )
    result.assert_outcomes(passed=1, failed=1)


def test_a_file_beside_the_test_or_in_the_root_folder(run, pytester):
    below = pytester.mkdir("below")
    (pytester.path / "fabric.yaml").rename(below / "near.yaml")
    (pytester.path / "root.yaml").write_text(TOPOLOGY)
    pytester.makeini("[pytest]")
    test = """
        import pathlib, pytest
        @pytest.mark.parametrize("cxl_topology", ["near.yaml", "root.yaml", pathlib.Path("near.yaml")])
        def test_it(cxl_fabric):
            assert list(cxl_fabric.hosts) == ["alpha", "beta"]
    """
    made = pytester.makepyfile(test)
    made.rename(below / "test_below.py")
    result = pytester.runpytest_inprocess("-p", "softcxl.testing.plugin", str(below))
    result.assert_outcomes(passed=3)


def test_a_fixture_of_ones_own_and_the_class_marker(run, pytester):
    pytester.makeconftest(
        """
        import pytest
        @pytest.fixture
        def cxl_topology():
            return "fabric.yaml"
        """
    )
    result = run(
        """
        import pytest
        def test_it(cxl_system):
            assert list(cxl_system.memdevs) == ["mem0"]

        @pytest.mark.cxl_topology(None, host="beta")
        class TestBeta:
            def test_it(self, cxl_system):
                assert list(cxl_system.memdevs) == []
        """
    )
    result.assert_outcomes(passed=2)


def test_persistent_memory_is_each_tests_own(run, pytester):
    (pytester.path / "fabric.yaml").write_text("state: state\ndevices: {keep: {persistent: 256MiB}}")
    result = run(
        """
        import pytest
        @pytest.mark.cxl_topology("fabric.yaml")
        @pytest.mark.parametrize("byte", [b"a", b"b"])
        def test_it(cxl_fabric, byte):
            assert cxl_fabric.devices["keep"].space.read(0, 1) == bytes(1)
            cxl_fabric.devices["keep"].space.write(0, byte)
        """
    )
    result.assert_outcomes(passed=2)
    assert not (pytester.path / "state").exists()


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ("", "*which topology? Mark the test with @pytest.mark.cxl_topology*"),
        ("@pytest.mark.cxl_topology()", "*which topology?*"),
        ("@pytest.mark.cxl_topology('nowhere.yaml')", "*topology nowhere.yaml is neither in * nor in *"),
        (
            "@pytest.mark.cxl_topology('devices: {m: {volatile: 1MiB}}')",
            "*devices.m.volatile: 1MiB is not a multiple of 256MiB",
        ),
        (
            "@pytest.mark.cxl_topology('fabric.yaml', host='gamma')",
            "*gamma is no host of the topology; there are alpha, beta",
        ),
        (
            "@pytest.mark.cxl_topology('devices: {m: {volatile: 256MiB}}')",
            "*the topology has no host; there are none",
        ),
    ],
)
def test_mistakes_are_sentences(run, mark, said):
    result = run(f"import pytest\n{mark}\ndef test_it(cxl_system): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*plugin.py:*: *Error*")


def test_the_marker_explains_itself(run):
    run("", "--markers").stdout.fnmatch_lines(["@pytest.mark.cxl_topology(topology, host=None):*"])


def test_pytest_is_told_of_it_by_the_name_that_others_give():
    # Under another name, -p or pytest_plugins with the module's would be refused as a second registration.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"softcxl.testing.plugin": "softcxl.testing.plugin"}


def test_it_is_light(pytester):
    done = pytester.runpython_c(
        "import sys, softcxl.testing.plugin;"
        "print([one for one in ('numpy', 'yaml', 'msgspec', 'softcxl.fabric') if one in sys.modules])"
    )
    assert done.outlines == ["[]"]
