"""What the last run has checked: the same manifest, with the same files, is not expanded once more to be checked.

The record lies in the job's state directory. It counts for the very bytes of the manifest and of its data files, and
for images whose size and times are as they were; and for this version of the program with these providers' specs. A
manifest with an error leaves no record.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

import runner
from runner.app.image_files import KnownImage
from runner.errors import Diagnostic
from runner.files import atomic_write, file_mark, open_to_read
from runner.manifest.expand import ExpansionSummary
from runner.providers.images import ImageInfo
from runner.providers.spec import spec_paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from runner.settings import Settings

_FILE = "checked.json"
#: bytes of a record that is read, and images that one keeps
_MAX_BYTES, _MAX_IMAGES = 64 << 20, 100_000
#: nanoseconds within which a file may be written twice and keep its times
_RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """A manifest that was checked without an error."""

    #: SHA-256 of everything that its tasks are made from
    digest: str
    #: SHA-256 of what it was checked with
    basis: str
    #: every task has a price, and all are in one unit
    has_prices: bool
    summary: ExpansionSummary
    images: tuple[KnownImage, ...] = ()


def basis(settings: Settings) -> str:
    """Return a SHA-256 of what a manifest is checked with: this version, the specs, and where images may lie."""
    digest = hashlib.sha256(runner.__version__.encode())
    for name, path in sorted(spec_paths(settings.providers).items()):
        digest.update(f"\0{name}\0".encode() + path.read_bytes())
    for directory in settings.images:
        digest.update(f"\0{directory.resolve()}".encode())
    return digest.hexdigest()


def read_record(state_directory: Path) -> CheckRecord | None:
    """Return the record of a job, or None if there is none that can be read: then the manifest is checked in full."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        path = state_directory / _FILE
        with open_to_read(path) as file:
            stored = orjson.loads(file.read(_MAX_BYTES))
        summary = stored["summary"]
        return CheckRecord(
            str(stored["digest"]),
            str(stored["basis"]),
            stored["has_prices"] is True,
            ExpansionSummary(
                int(summary["tasks"]),
                int(summary["merged"]),
                {str(name): int(count) for name, count in summary["by_provider"].items()},
                str(summary["key_sum"]),
                tuple(Diagnostic(**each) for each in summary["warnings"]),
            ),
            tuple(_settled_images(stored["images"], file_mark(path)[1])),
        )
    return None


def _settled_images(images: Sequence[Mapping[str, Any]], written: int) -> Iterator[KnownImage]:
    """Yield the images that were not changed shortly before the record was written, and perhaps after, unnoticed."""
    for each in images:
        known = KnownImage(str(each["path"]), tuple(map(int, each["mark"])), ImageInfo(**each["image"]))
        if known.mark[1] < written - _RACY_NS:
            yield known


def write_record(state_directory: Path, record: CheckRecord) -> None:
    """Keep a record for the next run. Without it, as on a full disk, the next run checks once more."""
    if len(record.images) > _MAX_IMAGES:
        return
    with suppress(OSError), atomic_write(state_directory / _FILE, 0o600) as file:
        file.write(orjson.dumps(_to_dict(record)))


def _to_dict(record: CheckRecord) -> dict[str, Any]:
    summary = record.summary
    return {
        "digest": record.digest,
        "basis": record.basis,
        "has_prices": record.has_prices,
        "summary": {
            "tasks": summary.tasks,
            "merged": summary.merged,
            "by_provider": dict(summary.by_provider),
            "key_sum": summary.key_sum,
            "warnings": [asdict(each) for each in summary.warnings],
        },
        "images": [{"path": each.path, "mark": each.mark, "image": asdict(each.image)} for each in record.images],
    }
