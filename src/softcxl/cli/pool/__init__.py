"""`softcxl pool`: the pool on the command line. Its verbs call `softcxl.connect`, and have no logic of their own."""

from softcxl.cli.pool import bench, contents, regions, stat
from softcxl.cli.pool.group import pool

__all__ = ["pool"]

_VERBS = bench, contents, regions, stat
