"""The KVM trial: made once for each kernel, QEMU and processor, and remembered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from softcxl.lab import kvm
from softcxl.lab.parts import Kernel, Parts, Qemu, Tools


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parts:
    for name in ("qemu", "kernel", "busybox", "kvm"):
        (tmp_path / name).write_text(name)
    monkeypatch.setenv("SOFTCXL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kvm, "_DEVICE", tmp_path / "kvm")
    return Parts(
        Qemu((str(tmp_path / "qemu"),), (11, 1, 3), "system"),
        Kernel(tmp_path / "kernel", None, "7.2.12", "given"),
        Tools(tmp_path, {"busybox": tmp_path / "busybox"}, "system"),
    )


class Trial:
    def __init__(self, outcome: bool) -> None:
        self.outcome, self.times = outcome, 0

    def __call__(self, parts: Parts) -> bool:
        self.times += 1
        return self.outcome


@pytest.mark.parametrize("outcome", [True, False])
def test_tried_once(parts: Parts, outcome: bool) -> None:
    trial = Trial(outcome)
    said: list[str] = []
    for _ in range(3):
        assert kvm.works(parts, lambda step, _=None: said.append(step), trial) is outcome
    assert trial.times == 1
    assert said == ["trying whether a kernel runs under KVM"]


def test_another_kernel_is_tried_anew(parts: Parts, tmp_path: Path) -> None:
    assert kvm.works(parts, boot=Trial(True))
    (tmp_path / "other").write_text("other")
    other = replace(parts, kernel=replace(parts.kernel, image=tmp_path / "other"))
    assert not kvm.works(other, boot=Trial(False))
    assert kvm.works(parts, boot=Trial(False))


def test_a_replaced_qemu_is_tried_anew(parts: Parts, tmp_path: Path) -> None:
    before = kvm.trial_key(parts)
    (tmp_path / "qemu").write_text("another build")
    assert kvm.trial_key(parts) != before


def test_without_the_device_nothing_is_tried(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "kvm").unlink()
    trial = Trial(True)
    assert not kvm.works(parts, boot=trial)
    assert trial.times == 0


@pytest.mark.parametrize("text", ["", "[1]", "{", json.dumps({"x": "yes"})])
def test_damaged_memory_is_forgotten(parts: Parts, tmp_path: Path, text: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kvm.json").write_text(text)
    assert kvm.works(parts, boot=Trial(True))


def test_a_qemu_that_dies_is_no(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("#!/bin/sh\necho 'KVM internal error. Suberror: 1'\nsleep 1000\n")
    (tmp_path / "qemu").chmod(0o755)
    assert not kvm.boots(parts)


def test_a_qemu_that_shows_the_marker_is_yes(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text(f"#!/bin/sh\necho '{kvm.MARKER.decode()}'\n")
    (tmp_path / "qemu").chmod(0o755)
    assert kvm.boots(parts)
