"""Whether a stock kernel really runs under KVM here.

The presence of /dev/kvm says little: on some nested hosts the node opens and a kernel still dies at its first
unusual instruction. So one is booted, once for each kernel, QEMU and processor, and the answer kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from softcxl.lab import cache, cpio
from softcxl.lab.errors import LabError
from softcxl.lab.parts import Parts
from softcxl.lab.process import Child
from softcxl.lab.progress import Progress, silent

MARKER = b"softcxl: user space runs"
PATIENCE = 20.0
_DEATH = b"KVM internal error"
_DEVICE = Path("/dev/kvm")
_INIT = f"#!/bin/busybox sh\n/bin/busybox echo '{MARKER.decode()}' >/dev/console\n/bin/busybox poweroff -f\n"


def works(parts: Parts, progress: Progress = silent, boot: Callable[[Parts], bool] | None = None) -> bool:
    """True if KVM can be used with these parts; remembered in the cache. `boot` replaces the trial, for tests."""
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return False
    path = cache.folder() / "kvm.json"
    key = trial_key(parts)
    with cache.locked("kvm"):
        known = _read(path)
        if key not in known:
            progress("trying whether a kernel runs under KVM")
            known[key] = (boot or boots)(parts)
            with contextlib.suppress(LabError), cache.replacing_file(path) as draft:
                draft.write_text(json.dumps(known, indent=1) + "\n")
        return known[key]


def boots(parts: Parts) -> bool:
    """Boot the kernel under KVM to a first process that says it is there; False if it has not after 20 seconds."""
    tree = cpio.archive(
        [
            cpio.directory("bin"),
            cpio.directory("dev"),
            cpio.character_device("dev/console", 5, 1),
            cpio.file("bin/busybox", parts.tools.programs["busybox"].read_bytes(), 0o755),
            cpio.file("init", _INIT.encode(), 0o755),
        ]
    )
    data = [word for folder in parts.qemu.data for word in ("-L", str(folder))]
    with tempfile.NamedTemporaryFile() as initrd, tempfile.TemporaryFile() as output:
        initrd.write(tree)
        initrd.flush()
        command = [
            *parts.qemu.command,
            *data,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-nic",
            "none",
        ]
        command += [
            "-machine",
            "q35",
            "-accel",
            "kvm",
            "-cpu",
            "host",
            "-m",
            "512M",
            "-no-reboot",
            "-serial",
            "stdio",
        ]
        command += ["-kernel", str(parts.kernel.image), "-initrd", initrd.name]
        command += ["-append", "console=ttyS0 quiet panic=-1"]
        try:
            child = Child(command, output=output, environment=parts.qemu.environment, ended=lambda: None)
        except LabError:
            return False
        deadline = time.monotonic() + PATIENCE
        try:
            while not child.wait(0.2):
                said = _said(output)
                if MARKER in said or _DEATH in said or time.monotonic() > deadline:
                    break
        finally:
            if child.status is None:
                child.stop(grace=0.0)
        return MARKER in _said(output)


def _said(output: IO[bytes]) -> bytes:
    # by position, because QEMU writes at the position this file shares with it
    return os.pread(output.fileno(), 1 << 20, 0)


def trial_key(parts: Parts) -> str:
    """What the answer depends on: the kernel's and QEMU's files, the host's kernel and its processor."""
    told = [os.uname().release, _processor()]
    for path in (parts.kernel.image, Path(parts.qemu.command[-1])):
        facts = path.stat()
        told.append(f"{path} {facts.st_size} {facts.st_mtime_ns}")
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:24]


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
    found = re.findall(
        r"^(?:vendor_id|cpu family|model|model name|stepping|microcode|flags)\s*:.*$", text, re.MULTILINE
    )
    return "\n".join(dict.fromkeys(found))


def _read(path: Path) -> dict[str, bool]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {str(key): value for key, value in known.items() if isinstance(value, bool)}
