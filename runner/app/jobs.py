"""A job: a checked manifest with its catalogue and settings. Nothing is sent or written here."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from runner.app.album import Album
from runner.app.prices import Prices, Unpriced, both
from runner.errors import ManifestError, NoSuchJob, Problem
from runner.manifest import expand, parse
from runner.manifest.units import rate
from runner.providers import spec as specs
from runner.providers.catalogue import Catalogue
from runner.providers.dialect import Dialect
from runner.providers.pictures import holds_mark
from runner.report.text import shell
from runner.store.adding import Addition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.manifest.model import Manifest, Rate
    from runner.manifest.parse import Parsed
    from runner.settings import Settings

#: bytes of a manifest, which is read into memory; its data files are not
_LARGEST = 64 * 2**20
#: suffixes of data files, which users name in the place of a manifest
_TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx", ".xls"})
#: files that are compared with the name of a missing manifest
_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """A checked manifest with its number of tasks and the settings that it was loaded with."""

    parsed: Parsed
    summary: expand.Summary
    catalogue: Catalogue
    settings: Settings
    in_sandbox: bool
    #: SHA-256 of everything that its tasks are made from
    digest: str
    #: the local images that the manifest names
    album: Album

    @property
    def manifest(self) -> Manifest:
        """Return the parsed manifest."""
        return self.parsed.manifest

    @property
    def directory(self) -> Path:
        """Return the job directory, which receives the outputs."""
        return self.manifest.directory

    @property
    def state(self) -> Path:
        """Return the directory of the store."""
        return self.directory / ".runner"

    def additions(self) -> Iterator[Addition]:
        """Yield the drafts, each with its price, the paths of its images and the fingerprint that duplicates share."""
        fingerprints, prices = Fingerprints(self.settings), Prices(self.manifest, self.catalogue)
        for draft in expand.expand(self.parsed, self.catalogue):
            fingerprint = fingerprints.of(draft.provider, draft.operation, draft.model, draft.request)
            images = self.album.paths(draft.request, prices.shape(draft).images)
            yield Addition(draft, fingerprint, prices.of(draft), images)


class Fingerprints:
    """Hashes of the request fields that a provider's list shows.

    Reconciling compares them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def of(self, provider: str, operation: str, model: str, request: Any) -> str:
        """Return 32 hexadecimal digits, or "" if the provider has no list or its list shows our own reference."""
        spec = specs.load(provider, self._settings.providers)
        listing = spec.look_up.listing
        if listing is None or listing.reference is not None:
            return ""
        body = Dialect(spec).body(operation, model, request)
        shown = {name: body[name] for name in listing.echo if name in body and not holds_mark(body[name])}
        return hashlib.sha256(orjson.dumps([provider, shown], option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def load(
    path: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    in_sandbox: bool = False,
    each: expand.Each | None = None,
    capped: bool = False,
) -> Job:
    """Read and check a manifest and return its job.

    Calls `on_draft` with every draft while it is checked.
    Under a cap on its costs, the manifest's own or one of the command line (`has_cost_cap`), every task needs a price.
    Raises ManifestError with every diagnostic.
    """
    text = _text(path)
    images = Album(path.absolute().parent, settings.images)
    catalogue = Catalogue(settings.providers, images)
    cap_check = Unpriced(catalogue, capped=capped)
    parsed, summary = expand.examine(text, path, catalogue, out=out, each=both(cap_check.see, each))
    cap_check.raise_any(parsed)
    if in_sandbox and out is None:
        parsed = replace(parsed, manifest=apart(parsed.manifest))
    digest = _digest(text, parsed.manifest, images)
    return Job(parsed, summary, catalogue, settings, in_sandbox, digest, images)


def directory_of(path: Path, *, out: Path | None = None, in_sandbox: bool = False) -> Path:
    """Return the job directory of a manifest without checking its tasks.

    Raises NoSuchJob or ManifestError.
    """
    if out is not None:
        return out
    if not path.exists():
        hint = _nearest(path)
        raise NoSuchJob(f"{path}: no such manifest or directory", hint=f"{hint[0].upper()}{hint[1:]}")
    manifest = parse.parse(_text(path), path).manifest
    return (apart(manifest) if in_sandbox else manifest).directory


def apart(manifest: Manifest) -> Manifest:
    """Return the manifest with the directory for sandbox runs, whose outputs must never count as bought."""
    return replace(manifest, directory=manifest.directory.with_name(f"{manifest.directory.name}-sandbox"))


def _text(path: Path) -> bytes:
    """Return the content of a manifest.

    Raises ManifestError if it is a table, a directory or unreadable.
    """
    if path.suffix.lower() in _TABLES:
        hint = f"`runner init --items {shell(str(path))}` makes a manifest of it"
        raise ManifestError([Problem(str(path), 0, 0, "", "is a table, not a manifest", hint)])
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ManifestError([Problem(str(path), 0, 0, "", "is not a file", "name a manifest, a YAML file")])
        with path.open("rb") as file:
            return file.read(_LARGEST + 1)
    except OSError as error:
        diagnostic = Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}", _nearest(path).rstrip("."))
        raise ManifestError([diagnostic]) from None


def _nearest(path: Path) -> str:
    """Return a hint that names the most similar manifest beside a missing one."""
    stems = {other.stem: other for other in islice(path.parent.glob("*.y*ml"), _LOOKED_AT)}
    near = get_close_matches(path.stem, stems, n=1)
    return f"did you mean {stems[near[0]]}?" if near else "check the path."


def _digest(text: bytes, manifest: Manifest, images: Album) -> str:
    """Return a SHA-256 over manifest, provider, model, data files and local images."""
    digest = hashlib.sha256(text)
    digest.update(f"\0{manifest.provider}\0{manifest.model}\0".encode())
    for path in manifest.files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for name, sha256 in images.contents:
        digest.update(f"\0{name}\0{sha256}".encode())
    return digest.hexdigest()


def submit_rate(job: Job, provider: str) -> Rate:
    """Return the submit rate of a provider: the manifest's, else the cautious one of its spec."""
    return job.manifest.limits.qps or rate(specs.load(provider, job.settings.providers).limits.submit)
