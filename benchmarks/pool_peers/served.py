"""A pool for a benchmark: `softcxl serve` in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVE = "import sys; from softcxl.cli import main; sys.exit(main(sys.argv[1:]))"


@contextmanager
def pool(devices: int = 4, size: str = "256MiB", arena: str = "64MiB") -> Iterator[str]:
    """The address of a pool of so many memory devices of `size`."""
    names = [f"mem{number}" for number in range(devices)]
    topology = {
        "devices": {name: {"volatile": size} for name in names},
        "pool": {"memory": names, "arena": arena},
    }
    with tempfile.TemporaryDirectory(prefix="softcxl-bench-") as folder:
        path = Path(folder) / "pool.yaml"
        path.write_text(json.dumps(topology))
        command = [
            sys.executable,
            "-c",
            SERVE,
            "serve",
            str(path),
            "--socket",
            f"unix:{folder}/control",
            "--json",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                raise SystemExit(f"softcxl serve ended with status {server.wait()}")
            try:
                yield json.loads(line)["pool"]
            finally:
                server.terminate()
                server.wait()
