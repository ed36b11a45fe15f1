"""The kernel inside a bzImage, taken out so that an emulated processor need not decompress it.

Sources: Linux Documentation/arch/x86/boot.rst (payload_offset, payload_length) and boot.html's direct entry for
hypervisors: an ELF note of Xen type 18, PHYS32_ENTRY, by which QEMU starts an uncompressed kernel (CONFIG_PVH).
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

from softcxl.lab import cache
from softcxl.lab.errors import FetchError

_SECTOR = 512
_PT_NOTE = 4
_PHYS32_ENTRY = 18
_PROGRAM = struct.Struct("<IIQQQQQQ")
_KEPT = 4


def direct_image(image: Path) -> Path:
    """A file QEMU boots as `image` without decompression in the guest; `image` itself where there is no such thing.

    Kept in the cache. A kernel without CONFIG_PVH, or compressed in a way this machine cannot read, is booted as it is.
    """
    facts = image.stat()
    key = hashlib.sha256(
        f"{image} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}".encode()
    ).hexdigest()[:24]
    folder = cache.folder() / "kernels"
    kept, refused = folder / f"{key}.elf", folder / f"{key}.no"
    if refused.exists():
        return image
    if kept.exists():
        return kept
    kernel = _unpacked(image.read_bytes())
    try:
        with cache.replacing_file(refused if kernel is None else kept) as draft:
            draft.write_bytes(kernel or b"")
    except FetchError:
        # it only would have been faster
        return image
    for old in sorted(folder.glob("*.elf"), key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        old.unlink(missing_ok=True)
    return image if kernel is None else kept


def _unpacked(image: bytes) -> bytes | None:
    try:
        begin = (image[0x1F1] + 1) * _SECTOR
        offset, length = struct.unpack_from("<II", image, 0x248)
        kernel = _decompressed(image[begin + offset : begin + offset + length])
        return kernel if kernel is not None and _enters_directly(kernel) else None
    except (struct.error, IndexError, OSError, EOFError, ValueError, lzma.LZMAError):
        return None


def _decompressed(payload: bytes) -> bytes | None:
    """The payload ends in its uncompressed length, four bytes that are none of the compressor's."""
    body = payload[:-4]
    if payload[:2] == b"\x1f\x8b":
        # gzip's own trailer is that length
        return gzip.decompress(payload)
    if payload[:3] == b"BZh":
        return bz2.decompress(body)
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.decompress(body)
    if payload[:4] == b"\x28\xb5\x2f\xfd" and shutil.which("zstd"):
        result = subprocess.run(["zstd", "-dcq"], input=body, capture_output=True, check=False)
        return result.stdout if result.returncode == 0 else None
    return payload if payload[:4] == b"\x7fELF" else None


def _enters_directly(kernel: bytes) -> bool:
    (table,) = struct.unpack_from("<Q", kernel, 32)
    size, count = struct.unpack_from("<HH", kernel, 54)
    for index in range(count):
        kind, _, offset, _, _, length, _, _ = _PROGRAM.unpack_from(kernel, table + index * size)
        if kind == _PT_NOTE and _has_entry_note(kernel[offset : offset + length]):
            return True
    return False


def _has_entry_note(notes: bytes) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name, description, kind = struct.unpack_from("<III", notes, at)
        if kind == _PHYS32_ENTRY and notes[at + 12 : at + 16] == b"Xen\0":
            return True
        at += 12 + (name + 3 & ~3) + (description + 3 & ~3)
    return False
