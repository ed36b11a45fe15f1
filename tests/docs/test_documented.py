"""Nothing public is undocumented: Python names, commands and options, topology keys, declarations."""

import inspect
import re
from pathlib import Path

import click
import pytest

DOCS = Path("docs")


def test_every_public_name_has_a_docstring_and_is_in_the_reference(reference):
    page = reference.api.page()
    missing = []
    count = 0
    for module in reference.api.modules():
        assert len(set(module.__all__)) == len(module.__all__), module.__name__
        for name in module.__all__:
            thing = getattr(module, name)
            count += 1
            if name not in page:
                missing.append(f"{module.__name__}.{name}: not in the reference")
            if not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            # A class without a docstring of its own would show its base's.
            own = thing.__dict__.get("__doc__") if inspect.isclass(thing) else thing.__doc__
            if not own:
                missing.append(f"{module.__name__}.{name}: no docstring")
    assert missing == []
    assert count > 20


@pytest.mark.parametrize(
    ("name", "members"),
    [
        (
            "softcxl.pool.session",
            ["allocate", "address", "on_return", "close"],
        ),  # of Pool and what it is made of
        ("softcxl.pool.region", ["read", "name", "closed", "close"]),
        (
            "softcxl.pool.channel",
            ["send", "receive", "put", "get", "close"],
        ),  # in C, and of any part in a channel
    ],
)
def test_what_the_pools_classes_inherit_is_in_the_reference(reference, name, members):
    section = reference.api.page().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert [one for one in members if f"| `{one}` |" not in section] == []


def test_every_command_and_option_has_help_and_is_in_the_reference(reference):
    page = reference.commandline.page()
    missing = []
    for path, command in reference.commandline.commands():
        assert f"\n## {path}\n" in page
        if not command.help:
            missing.append(path)
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(f"`{name}`" in page for name in option.opts)
                if not option.help:
                    missing.append(f"{path} {option.opts[0]}")
    assert missing == []


def test_every_topology_key_says_what_it_means_and_what_is_allowed(reference):
    page = reference.topology.page()
    places = {}
    for place, struct in reference.topology.structs():
        _, section = page.split(f"\n## {place}\n")
        section = section.partition("\n## ")[0]
        for field in struct.fields:
            row = next(line for line in section.splitlines() if line.startswith(f"| `{field.encode_name}` |"))
            cells = [cell.strip() for cell in row.strip("|").split(" | ")]
            assert len(cells) == 4
            assert all(len(cell) > 1 for cell in cells), row
        places[place] = [field.encode_name for field in struct.fields]
    assert list(places) == [
        "The file",
        "devices.NAME",
        "devices.NAME.dynamic[]",
        "devices.NAME.features[]",
        "devices.NAME (type: mld)",
        "devices.NAME (type: mld).logical_devices[]",
        "devices.NAME (type: mld).dynamic[]",
        "devices.NAME (type: switch-cci)",
        "devices.NAME (type: pool-access)",
        "devices.NAME (type: pool-memory)",
        "switches.NAME",
        "switches.NAME.virtual.NAME",
        "hosts.NAME",
        "hosts.NAME.bridges.NAME",
        "hosts.NAME.windows[]",
        "hosts.NAME.regions[]",
        "pool",
    ]
    assert places["hosts.NAME"] == ["bridges", "windows", "regions", "memory", "cpus"]


def test_every_scenario_key_says_what_it_means_and_what_is_allowed(reference):
    page = reference.scenario.page()
    for place, struct in reference.scenario.structs():
        section = page.split(f"\n## {place}\n")[1].partition("\n## ")[0]
        for field in struct.fields:
            row = next(line for line in section.splitlines() if line.startswith(f"| `{field.encode_name}` |"))
            assert all(len(cell.strip()) > 1 for cell in row.strip("|").split(" | ")), row
    places = [place for place, _ in reference.scenario.structs()]
    assert {"The file", "steps[]", "steps[].fault", "steps[].expect", "steps[].expect.guest"} <= set(places)


def test_every_declaration_is_in_the_reference_with_its_clause(reference):
    missing = []
    for module in reference.declarations.modules():
        declared = reference.declarations.declared(module)
        if not declared:
            continue
        page = reference.PAGES[reference.declarations.page_name(module)]()
        for thing in declared:
            assert f"\n## {thing.__name__}\n" in page
            if not thing.__layout__.spec:
                missing.append(f"{module.__name__}.{thing.__name__}: no clause")
            if not thing.__layout__.doc:
                missing.append(f"{module.__name__}.{thing.__name__}: no docstring")
    assert missing == []


def test_the_commands_table_has_every_command_and_its_handler(reference):
    page = reference.commands.page()
    assert re.search(r"\| 4000h \| Identify Memory Device \| CXL 3\.\d §[\d.]+ \| `\w+\.identify", page)
    assert "| 4901h | Get GFD Status |  |  |  |" in page


def test_every_example_is_named_in_the_documentation():
    text = "".join(file.read_text() for file in DOCS.rglob("*.md") if "generated" not in file.parts)
    for file in [*Path("examples").glob("*.yaml"), *Path("examples/scenarios").glob("*.yaml")]:
        assert file.name in text, file


def test_make_targets_are_in_its_help_and_explained():
    makefile = Path("Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    for target in phony[1].split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target


def test_changelog_speaks_of_the_next_version():
    assert "## [Unreleased]" in Path("CHANGELOG.md").read_text()
