"""Whatever an endpoint answers, a verb ends with a sentence and a status, never with an error inside SoftCXL."""

import random

import pytest

from softcxl.cli import main
from tests.fm.scripted import Reply

VERBS = [
    "identify",
    "tree",
    "ports",
    "switches",
    "bind 0 0 0 --no-wait",
    "ld list",
    "ld allocate 0 1GiB",
    "qos show",
    "qos set --moderate 3",
    "qos limit 0 1",
    "heads",
    "dc info",
    "dc regions 0",
    "dc extents 0",
    "dc tags",
    "events",
    "events --keep --json",
    "commands",
    "background",
    "limit",
    "config read 0 0 16",
    "memory read 0 0 0 64",
    "domain show 0",
    "raw 5101 0100",
    "raw 0100 00",
    "tunnel 0 0001",
]


@pytest.mark.parametrize("verb", VERBS)
def test_garbage(scripts, capsys, verb):
    dice = random.Random(verb)

    def execute(opcode, payload):
        size = dice.choice([0, 4, 16, 32, 73, 160, 164])
        bound = dice.choice([2, 6, 256])
        return Reply(dice.choice([0, 0, 0, 0, 0, 2, 99]), bytes(dice.randrange(bound) for _ in range(size)))

    scripts.execute = execute
    for _ in range(12):
        status = main(["fm", *verb.split()])
        out, err = capsys.readouterr()
        assert status in (0, 1, 3), (out, err)
        assert err.count("\n") >= bool(status)
        assert "internal error" not in err
