"""A manifest with its catalogue: checked, counted, planned; nothing is sent or written here."""

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

#: a manifest is read whole; its rows are not
_LARGEST = 64 * 2**20
#: how data files end that no manifest is mistaken for
_TABLES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx", ".xls"})
#: neighbours of a manifest that is not there
_LOOKED_AT = 1000


@dataclass(frozen=True, slots=True)
class Job:
    """A checked manifest, what it comes to, and the settings it was loaded with."""

    parsed: Parsed
    summary: expand.Summary
    catalogue: Catalogue
    settings: Settings
    in_sandbox: bool
    #: of everything its tasks are made from
    digest: str
    #: the local pictures that it names
    album: Album

    @property
    def manifest(self) -> Manifest:
        return self.parsed.manifest

    @property
    def directory(self) -> Path:
        """Where the outputs go."""
        return self.manifest.directory

    @property
    def state(self) -> Path:
        """Where the store is."""
        return self.directory / ".runner"

    def additions(self) -> Iterator[Addition]:
        """The drafts, lazily, each with the fingerprint that its twins share and the paths of its pictures."""
        prints, prices = Fingerprints(self.settings), Prices(self.manifest, self.catalogue)
        for draft in expand.expand(self.parsed, self.catalogue):
            mark = prints.of(draft.provider, draft.operation, draft.model, draft.request)
            pictures = self.album.paths(draft.request, prices.shape(draft).images)
            yield Addition(draft, mark, prices.of(draft), pictures)


class Fingerprints:
    """Hashes of what a provider's list echoes; empty where the list knows our reference or there is no list."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def of(self, provider: str, operation: str, model: str, request: Any) -> str:
        """32 hex digits, or nothing."""
        spec = specs.load(provider, self._settings.providers)
        listing = spec.look_up.listing
        if listing is None or listing.reference is not None:
            return ""
        body = Dialect(spec).body(operation, model, request)
        seen = {name: body[name] for name in listing.echo if name in body and not holds_mark(body[name])}
        return hashlib.sha256(orjson.dumps([provider, seen], option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]


def load(
    path: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    in_sandbox: bool = False,
    each: expand.Each | None = None,
    capped: bool = False,
) -> Job:
    """The job of a manifest; raises ManifestError with every mistake. `each` sees every draft while it is checked.

    Under a cap on its costs, the manifest's or one of the command line (`capped`), every task needs a price.
    """
    text = _text(path)
    album = Album(path.absolute().parent, settings.images)
    catalogue = Catalogue(settings.providers, album)
    unpriced = Unpriced(catalogue, capped=capped)
    parsed, summary = expand.examine(text, path, catalogue, out=out, each=both(unpriced.see, each))
    unpriced.raise_any(parsed)
    if in_sandbox and out is None:
        parsed = replace(parsed, manifest=apart(parsed.manifest))
    digest = _digest(text, parsed.manifest, album)
    return Job(parsed, summary, catalogue, settings, in_sandbox, digest, album)


def directory_of(path: Path, *, out: Path | None = None, in_sandbox: bool = False) -> Path:
    """The job directory that a manifest stands for."""
    if out is not None:
        return out
    if not path.exists():
        hint = _nearest(path)
        raise NoSuchJob(f"{path}: no such manifest or directory", hint=f"{hint[0].upper()}{hint[1:]}")
    manifest = parse.parse(_text(path), path).manifest
    return (apart(manifest) if in_sandbox else manifest).directory


def apart(manifest: Manifest) -> Manifest:
    """What the sandbox makes must never count as bought, so it has a directory of its own."""
    return replace(manifest, directory=manifest.directory.with_name(f"{manifest.directory.name}-sandbox"))


def _text(path: Path) -> bytes:
    if path.suffix.lower() in _TABLES:
        cure = f"`runner init --items {shell(str(path))}` makes a manifest of it"
        raise ManifestError([Problem(str(path), 0, 0, "", "is a table, not a manifest", cure)])
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ManifestError([Problem(str(path), 0, 0, "", "is not a file", "name a manifest, a YAML file")])
        with path.open("rb") as file:
            return file.read(_LARGEST + 1)
    except OSError as error:
        problem = Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}", _nearest(path).rstrip("."))
        raise ManifestError([problem]) from None


def _nearest(path: Path) -> str:
    """A manifest beside it that is called almost the same."""
    stems = {other.stem: other for other in islice(path.parent.glob("*.y*ml"), _LOOKED_AT)}
    near = get_close_matches(path.stem, stems, n=1)
    return f"did you mean {stems[near[0]]}?" if near else "check the path."


def _digest(text: bytes, manifest: Manifest, album: Album) -> str:
    """Changes with everything the tasks are made from."""
    digest = hashlib.sha256(text)
    digest.update(f"\0{manifest.provider}\0{manifest.model}\0".encode())
    for path in manifest.files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    for name, sha256 in album.contents:
        digest.update(f"\0{name}\0{sha256}".encode())
    return digest.hexdigest()


def submit_rate(job: Job, provider: str) -> Rate:
    """How fast submits may go: the manifest's word, else the spec's cautious one."""
    return job.manifest.limits.qps or rate(specs.load(provider, job.settings.providers).limits.submit)
