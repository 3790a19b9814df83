"""A job: a checked manifest with its catalogue and settings. Nothing is sent or written here."""

from __future__ import annotations

import hashlib
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from runner.app.checked_manifest import CheckRecord, basis, read_record
from runner.app.image_files import LocalImages
from runner.errors import Diagnostic, JobNotFoundError, ManifestError, UsageError
from runner.files import file_mark, open_to_read
from runner.manifest import expand, parser, python_values
from runner.manifest.diagnostics import Diagnostics
from runner.manifest.identity import canonical, task_goods
from runner.manifest.python_values import PythonValues
from runner.providers import spec as specs
from runner.providers.catalogue import Catalogue
from runner.providers.images import has_placeholder
from runner.providers.requests import Dialect, request_fingerprint
from runner.store.task_rows import Addition
from runner.text import shell_join
from runner.units import parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from runner.manifest.expand import DraftCallback
    from runner.manifest.model import Manifest
    from runner.manifest.parser import ParsedManifest
    from runner.providers.catalogue import ModelSchema
    from runner.settings import Settings
    from runner.tasks.models import Draft, MergedRow
    from runner.units import Rate


#: bytes of a manifest, which is read into memory; its data files are not
_MAX_MANIFEST_BYTES = 64 * 2**20
#: bytes of a data file that are hashed at a time
_CHUNK = 1 << 20
#: suffixes of data files, which users name in the place of a manifest
_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods"})
#: files that are compared with the name of a missing manifest
_MAX_NEIGHBOURS = 1000


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A checked manifest with its number of tasks and the settings that it was loaded with."""

    parsed: ParsedManifest
    summary: expand.ExpansionSummary
    catalogue: Catalogue
    settings: Settings
    in_sandbox: bool
    #: SHA-256 of everything that its tasks are made from
    digest: str
    #: the local images that the manifest names
    images: LocalImages
    #: the data files as they were when the manifest was checked
    data_files: tuple[DataFile, ...] = ()
    #: every task was seen to have a price, and all are in one unit
    has_prices: bool = False
    #: an earlier run has checked all of it, so it was not expanded
    was_known: bool = False
    #: gives a diagnostic the path of its value, if the manifest is no file
    locate: Callable[[Diagnostic], Diagnostic] | None = None

    @property
    def manifest(self) -> Manifest:
        """Return the parsed manifest."""
        return self.parsed.manifest

    @property
    def directory(self) -> Path:
        """Return the job directory, which receives the outputs."""
        return self.manifest.directory

    @property
    def state_directory(self) -> Path:
        """Return the directory of the store."""
        return self.directory / ".runner"

    def changed_file(self) -> Path | None:
        """Return a data file that has been written or replaced since the manifest was checked, or None."""
        return next((each.path for each in self.data_files if not each.is_unchanged()), None)

    def check_record(self) -> CheckRecord:
        """Return what the next run need not check again."""
        images = tuple(self.images.known())
        return CheckRecord(self.digest, basis(self.settings), self.has_prices, self.summary, images)

    def drafts(self, on_merged: Callable[[MergedRow], None] | None = None) -> Iterator[Draft]:
        """Yield the drafts. Raises ManifestError if a data file or an image has changed and is wrong now.

        Calls `on_merged` with each row whose task is that of an earlier row.
        """
        with _located_errors(self.locate):
            yield from expand.expand(self.parsed, self.catalogue, on_merged)

    def check_cost_cap(self, option: str) -> None:
        """Raise ManifestError, which names `option`, if a task has no price and so no cap on costs can hold."""
        cap_check = CostCapCheck(self.catalogue, has_cap=True, option=option)
        for draft in self.drafts():
            cap_check.add(self.parsed, draft)
        with _located_errors(self.locate):
            cap_check.raise_if_unpriced(self.parsed, self.summary.warnings)

    def additions(self, after: int = 0) -> Iterator[Addition]:
        """Yield the drafts, each with its price, the paths of its images and the fingerprint that duplicates share.

        Those up to the position `after` are left out.
        """
        fingerprints, prices = Fingerprints(self.settings), Prices(self.manifest, self.catalogue)
        for draft in islice(self.drafts(), after, None):
            fingerprint = fingerprints.of(draft.provider, draft.operation, draft.model, draft.request)
            images = self.images.image_paths(draft.request, prices.shape(draft).images)
            yield Addition(draft, fingerprint, prices.of(draft), images)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file as it was when it was hashed."""

    path: Path
    sha256: bytes
    #: see `runner.files.file_mark`
    mark: tuple[int, ...]

    def is_unchanged(self) -> bool:
        """Return whether the file is still the same, as far as its size, times and inode tell."""
        try:
            return file_mark(self.path) == self.mark
        except OSError:
            return False


class Goods:
    """Hashes of what stored tasks have bought, for rows that an older version made."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def of(self, provider: str, operation: str, model: str, request: Mapping[str, Any], repeat: int) -> str:
        """Return the goods as a manifest would have them that asks for the request today."""
        schema = self._schema(provider, operation, model)
        if schema is None:  # nothing that is asked for today goes there
            return task_goods(provider, operation, model, request, repeat, {})
        implied = {name: canonical(value) for name, value in schema.implied.items()}
        return task_goods(provider, schema.endpoint, model, request, repeat, implied)

    def _schema(self, provider: str, operation: str, model: str) -> ModelSchema | None:
        """Return the schema of a model, or None if the spec has neither its operation nor its name any more."""
        for name, unchecked in ((f"{operation}/{model}", True), (model, False)):
            with suppress(UsageError):
                return self._catalogue.find(provider, name, unchecked=unchecked)
        return None


class Fingerprints:
    """Hashes of the request fields that a provider's list shows.

    Reconciling compares them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def of(self, provider: str, operation: str, model: str, request: Any) -> str:
        """Return 32 hexadecimal digits, or "" if the provider has no list or its list shows our own reference."""
        spec = specs.load(provider, self._settings.providers)
        listing = spec.reconcile.listing
        if listing is None or listing.reference is not None:
            return ""
        body = Dialect(spec).body(operation, model, request)
        shown = {name: body[name] for name in listing.echo if name in body and not has_placeholder(body[name])}
        return request_fingerprint(provider, shown)


def load(
    path: Path,
    settings: Settings,
    *,
    out: Path | None = None,
    in_sandbox: bool = False,
    on_draft: expand.DraftCallback | None = None,
    on_progress: Callable[[int], None] | None = None,
    has_cost_cap: bool = False,
) -> LoadedJob:
    """Read and check a manifest and return its job.

    Calls `on_draft` with every draft while it is checked, and `on_progress` with their number now and then.
    Under a cap on its costs, the manifest's own or one of the command line (`has_cost_cap`), every task needs a price.
    What the job's last run has checked is not expanded again, unless there is an `on_draft`.
    Raises ManifestError with every diagnostic.
    """
    text = _manifest_text(path)
    images = LocalImages(path.absolute().parent, settings.images)
    catalogue = Catalogue(settings.providers, images)
    parsed, diagnostics = parser.try_parse(text, path, out=out)
    if parsed is None:
        raise diagnostics.error()
    manifest, files = parsed.manifest, _read_data_files(parsed.manifest)
    placed = with_sandbox_directory(manifest) if in_sandbox and out is None else manifest
    has_cap = has_cost_cap or manifest.limits.max_cost is not None
    record = read_record(placed.directory / ".runner")
    if record is not None:
        images.restore(record.images)
    summary = None
    if record is not None and files is not None and not diagnostics and on_draft is None:
        has_all = record.has_prices or not has_cap
        inventory = images.unchanged_inventory() if has_all and record.basis == basis(settings) else None
        if inventory is not None and record.digest == _digest(text, manifest, files, inventory):
            images.inspect_restored()
            summary = record.summary
    was_known = summary is not None
    if summary is None:
        cap_check = CostCapCheck(catalogue, has_cap=has_cost_cap)
        callback = chain_callbacks(cap_check.add, on_draft) if has_cap else on_draft
        summary = expand.check_parsed(parsed, diagnostics, catalogue, callback, on_progress)
        cap_check.raise_if_unpriced(parsed, summary.warnings)
    files = _unchanged(files, manifest.file)
    digest = _digest(text, manifest, files, images.inventory)
    return LoadedJob(
        replace(parsed, manifest=placed),
        summary,
        catalogue,
        settings,
        in_sandbox,
        digest,
        images,
        files,
        has_prices=has_cap or (was_known and record is not None and record.has_prices),
        was_known=was_known,
    )


def load_values(
    values: Mapping[str, Any], settings: Settings, *, out: Path | None = None, in_sandbox: bool = False
) -> LoadedJob:
    """Check a manifest of Python values, by the keys of a manifest, and return its job.

    Its relative paths start at the current directory. Raises ManifestError with every diagnostic, each of which names
    the path of its value.
    """
    file = Path(python_values.FILE)
    images = LocalImages(Path.cwd(), settings.images)
    catalogue = Catalogue(settings.providers, images)
    cap_check = CostCapCheck(catalogue, has_cap=False)
    nodes, diagnostics = PythonValues(values), Diagnostics(python_values.FILE)
    diagnostics.extend(nodes.diagnostics)
    with _located_errors(nodes.locate):
        parsed = parser.build(nodes.root, diagnostics, file, out=out)
        output = nodes.root.get("output")
        if out is None and "name" not in nodes.root and not (isinstance(output, dict) and "dir" in output):
            hint = 'write name="…", after which the job directory is called; or set `out`'
            diagnostics.add((1, 1), "name", "missing", hint)
        files = _read_data_files(parsed.manifest)
        summary = expand.check_parsed(parsed, diagnostics, catalogue, cap_check.add)
        cap_check.raise_if_unpriced(parsed, summary.warnings)
        files = _unchanged(files, file.name)
    summary = replace(summary, warnings=tuple(nodes.locate(warning) for warning in summary.warnings))
    if in_sandbox and out is None:
        parsed = replace(parsed, manifest=with_sandbox_directory(parsed.manifest))
    digest = _digest(orjson.dumps(nodes.root), parsed.manifest, files, images.inventory)
    return LoadedJob(parsed, summary, catalogue, settings, in_sandbox, digest, images, files, locate=nodes.locate)


@contextmanager
def _located_errors(locate: Callable[[Diagnostic], Diagnostic] | None) -> Iterator[None]:
    """Give the diagnostics of a ManifestError in the block the paths of their values."""
    try:
        yield
    except ManifestError as error:
        if locate is None:
            raise
        raise ManifestError(
            [locate(each) for each in error.diagnostics],
            omitted=error.omitted,
            others=[locate(each) for each in error.others],
            warnings=[locate(each) for each in error.warnings],
        ) from None


def directory_of(path: Path, *, out: Path | None = None, in_sandbox: bool = False) -> Path:
    """Return the job directory of a manifest without checking its tasks.

    Raises NoSuchJob or ManifestError.
    """
    if out is not None:
        return out
    if not path.exists():
        hint = _name_hint(path)
        raise JobNotFoundError(f"{path}: no such manifest or directory", hint=f"{hint[0].upper()}{hint[1:]}")
    manifest = parser.parse(_manifest_text(path), path).manifest
    return (with_sandbox_directory(manifest) if in_sandbox else manifest).directory


def with_sandbox_directory(manifest: Manifest) -> Manifest:
    """Return the manifest with the directory for sandbox runs, whose outputs must never count as bought."""
    return replace(manifest, directory=manifest.directory.with_name(f"{manifest.directory.name}-sandbox"))


def _manifest_text(path: Path) -> bytes:
    """Return the content of a manifest.

    Raises ManifestError if it is a table, a directory or unreadable.
    """
    if path.suffix.lower() in _TABLE_SUFFIXES:
        hint = f"`runner init --items {shell_join(str(path))}` makes a manifest of it"
        raise ManifestError([Diagnostic(str(path), 0, 0, "", "is a table, not a manifest", hint)])
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ManifestError([Diagnostic(str(path), 0, 0, "", "is not a file", "name a manifest, a YAML file")])
        with path.open("rb") as file:
            return file.read(_MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        diagnostic = Diagnostic(str(path), 0, 0, "", f"cannot be read: {error.strerror}", _name_hint(path).rstrip("."))
        raise ManifestError([diagnostic]) from None


def _name_hint(path: Path) -> str:
    """Return a hint that names the most similar manifest beside a missing one."""
    stems = {other.stem: other for other in islice(path.parent.glob("*.y*ml"), _MAX_NEIGHBOURS)}
    near = get_close_matches(path.stem, stems, n=1)
    return f"did you mean {stems[near[0]]}?" if near else "check the path."


def _read_data_files(manifest: Manifest) -> tuple[DataFile, ...] | None:
    """Return the data files with their hashes, or None if one cannot be read: the check says why."""
    found = []
    for path in manifest.data_files:
        try:
            with open_to_read(path, follow_links=True) as file:
                mark = file_mark(file.fileno())  # of what is read here, whatever has the name by now
                digest = hashlib.sha256()
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                found.append(DataFile(path, digest.digest(), mark))
        except OSError:
            return None
    return tuple(found)


def _unchanged(files: tuple[DataFile, ...] | None, manifest: str) -> tuple[DataFile, ...]:
    """Return the data files. Raises ManifestError if one was written while the manifest was checked."""
    if files is None or (changed := next((each.path for each in files if not each.is_unchanged()), None)) is not None:
        path = manifest if files is None else str(changed)
        raise ManifestError([Diagnostic(path, 0, 0, "", "has changed while it was read", "run the command again")])
    return files


def _digest(text: bytes, manifest: Manifest, files: Iterable[DataFile], inventory: Iterable[tuple[str, str]]) -> str:
    """Return a SHA-256 over manifest, provider, model, data files and local images (path and hash, by path)."""
    digest = hashlib.sha256(text)
    digest.update(f"\0{manifest.provider}\0{manifest.model}\0".encode())
    for file in files:
        digest.update(file.sha256)
    for name, sha256 in inventory:
        digest.update(f"\0{name}\0{sha256}".encode())
    return digest.hexdigest()


def submit_rate(job: LoadedJob, provider: str) -> Rate:
    """Return the submit rate of a provider: the manifest's, else the cautious one of its spec."""
    return job.manifest.limits.qps or parse_rate(specs.load(provider, job.settings.providers).limits.submit)


class Prices:
    """Prices of one manifest's drafts, each in its provider's unit."""

    def __init__(self, manifest: Manifest, catalogue: Catalogue) -> None:
        self._cost, self._catalogue = manifest.cost, catalogue
        self._shapes: dict[tuple[str, str, str], ModelSchema] = {}

    def of(self, draft: Draft) -> float | None:
        """Return the price of one task, or None if it is unknown."""
        if isinstance(self._cost, float):
            return self._cost
        for name in (f"{draft.operation}/{draft.model}", draft.model):
            if self._cost and name in self._cost:
                return self._cost[name]
        return self.shape(draft).cost(draft.request)

    def unit(self, draft: Draft) -> str:
        """Return the unit in which the draft's provider counts costs."""
        return self.shape(draft).spec.unit

    def shape(self, draft: Draft) -> ModelSchema:
        """Return the catalogue's entry of the draft's model."""
        key = (draft.provider, draft.operation, draft.model)
        if key not in self._shapes:
            name = f"{draft.operation}/{draft.model}"
            self._shapes[key] = self._catalogue.find(draft.provider, name, unchecked=True)
        return self._shapes[key]


class CostCapCheck:
    """Check of a cap on costs: every price must be known, and all must be in one unit."""

    def __init__(self, catalogue: Catalogue, *, has_cap: bool, option: str = "--max-cost") -> None:
        self._catalogue, self._has_cap, self._option = catalogue, has_cap, option
        self._prices: Prices | None = None
        self._unpriced_models: dict[str, None] = {}
        self._units: dict[str, None] = {}

    def add(self, parsed: ParsedManifest, draft: Draft) -> None:
        """Note the price and unit of one draft."""
        if not self._has_cap and parsed.manifest.limits.max_cost is None:
            return
        self._prices = self._prices or Prices(parsed.manifest, self._catalogue)
        self._units[self._prices.unit(draft)] = None
        if self._prices.of(draft) is None:
            self._unpriced_models[draft.model] = None

    def raise_if_unpriced(self, parsed: ParsedManifest, warnings: Sequence[Diagnostic]) -> None:
        """Raise ManifestError, with `warnings`, if a model has no price, or if prices are in several units."""
        if not self._unpriced_models and len(self._units) < 2:  # noqa: PLR2004 - two currencies
            return
        written = parsed.manifest.limits.max_cost is not None
        key = "limits.max_cost" if written else self._option
        line, column = parsed.source_map.location("limits", "max_cost") if written else (0, 0)
        models, units = ", ".join(self._unpriced_models), " and ".join(self._units)
        why, hint = (
            (f"nobody knows what {models} costs", "say it with `cost:`, e.g. `cost: 4`, in the provider's unit")
            if self._unpriced_models
            else (f"costs in {units} do not add up to one cap", "make a manifest for each")
        )
        raise ManifestError([Diagnostic(parsed.manifest.file, line, column, key, why, hint)], warnings=warnings)


def chain_callbacks(first: DraftCallback, second: DraftCallback | None) -> DraftCallback:
    """Return a callback that calls both, one after the other."""
    if second is None:
        return first

    def call_both(parsed: ParsedManifest, draft: Draft) -> None:
        first(parsed, draft)
        second(parsed, draft)

    return call_both
