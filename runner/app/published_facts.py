"""What others have measured of a provider with `runner probe --publish`: shown beside claims, and never believed.

The texts lie in a folder `facts` beside the specs, the shipped ones or those of `RUNNER_PROVIDERS`. They tell what to
expect of a provider, and where it did not keep its word. No class, adoption or purchase rests on them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import TYPE_CHECKING, Any

from runner.providers import spec as specs
from runner.providers.guarantee import FACTS
from runner.text import pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from runner.settings import Settings

#: texts of a folder that are read, and bytes of one
_MAX_FILES, _MAX_BYTES = 200, 16_384
_FACT = re.compile(r"  - (?P<name>\w+)(?: (?P<subject>.*?))?: (?P<value>.*) \((?P<state>\w+), n=(?P<n>\d{1,9})\)")
_FIELD = re.compile(r"(\w+): (.*)")
#: facts that tell nothing where they are as claimed, or that say more than fits on a line
_UNSHOWN = {"field", "own_rows"}
_MAX_TEXT = 60


@dataclass(frozen=True, slots=True)
class PublishedFact:
    """One fact of a text. `state` is `contradicted` where the provider did not do as its spec claims."""

    name: str
    subject: str
    value: str
    state: str


@dataclass(frozen=True, slots=True)
class Publication:
    """One text: a probe of somebody else's."""

    provider: str
    host: str
    operation: str
    day: date
    facts: tuple[PublishedFact, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """The texts about one provider at one host, and what is wrong with those that cannot be read."""

    texts: tuple[Publication, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def contradicted(self) -> list[str]:
        """Return the facts in which somebody saw the provider not keep its word."""
        found = (fact for text in self.texts for fact in text.facts if fact.state == "contradicted")
        return list(dict.fromkeys(_label(fact) for fact in found))

    def to_dict(self) -> dict[str, Any] | None:
        """Return the JSON object of `providers` and `plan`; None: there is no text."""
        if not self.texts:
            return None
        days = sorted(text.day for text in self.texts)
        facts = [{"fact": name, "values": dict(values)} for name, values in self._values().items()]
        return {
            "probes": len(self.texts),
            "first": str(days[0]),
            "last": str(days[-1]),
            "facts": facts,
            "contradicted": self.contradicted,
        }

    def summary(self) -> str:
        """Return all of it in one line of words, or "" if there is no text."""
        if not self.texts:
            return ""
        last = max(text.day for text in self.texts)
        rows = (f"{name} {value}" for name, value in self.rows())
        head = f"measured by others in {pluralize(len(self.texts), 'probe')}, last {last}"
        return f"{head}, and not believed before it is measured here: {'; '.join(rows)}"

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield each fact with what was seen of it, the most frequent first."""
        for name, values in self._values().items():
            several = len(self.texts) > 1
            yield name, ", ".join(f"{value} ({n})" if several else value for value, n in values.most_common(3))

    def _values(self) -> dict[str, Counter[str]]:
        found: dict[str, Counter[str]] = {}
        for text in self.texts:
            for fact in text.facts:
                if fact.name not in _UNSHOWN or fact.state == "contradicted":
                    value = sanitize(fact.value, _MAX_TEXT) or "yes"
                    value = f"NOT AS CLAIMED: {value}" if fact.state == "contradicted" else value
                    found.setdefault(_label(fact), Counter())[value] += 1
        return found


def read_published(name: str, settings: Settings) -> Published:
    """Return what others have published about a provider at the host that the environment names.

    A text about another host tells nothing about this one. Raises nothing: what cannot be read is a problem.
    """
    folders = [folder for folder in _folders(settings) if folder.is_dir()]
    if not folders:
        return Published()
    texts, problems = [], []
    host = published_host(name, settings)
    for path in islice((path for folder in folders for path in sorted(folder.glob("*.txt"))), _MAX_FILES):
        try:
            with path.open("rb") as file:
                text = _parse(file.read(_MAX_BYTES + 1))
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}. It is what `runner probe --publish` writes, unchanged")
            continue
        if (text.provider, text.host) == (name, host):
            texts.append(text)
    return Published(tuple(texts), tuple(problems))


def published_host(name: str, settings: Settings) -> str:
    """Return the provider's address if it is that of the shipped spec, else `own`."""
    from runner.app import provider_config  # noqa: PLC0415 - imports what only a run needs
    from runner.errors import RunnerError  # noqa: PLC0415

    shipped = specs.spec_paths().get(name)
    known = specs.load(name).base_url if shipped is not None else None
    try:
        url = provider_config.base_url(specs.load(name, settings.providers), settings)
    except RunnerError:
        return "own"
    is_known = known is not None and provider_config.origin(known) == provider_config.origin(url)
    return provider_config.origin(url).partition("//")[2] if is_known else "own"


def _folders(settings: Settings) -> list[Path]:
    shipped = next(iter(specs.spec_paths().values())).parent
    return [folder / "facts" for folder in (shipped, *([settings.providers] if settings.providers else []))]


def _parse(content: bytes) -> Publication:
    """Return the publication in a text. Raises ValueError."""
    if len(content) > _MAX_BYTES:
        raise ValueError(f"more than {_MAX_BYTES:,} bytes")
    lines = content.decode().splitlines()
    fields, facts = _fields(lines), []
    for number, line in enumerate(lines, start=1):
        if line.startswith("  - "):
            found = _FACT.fullmatch(line)
            if found is None:
                raise ValueError(f"line {number} is no fact")
            facts.append(PublishedFact(found["name"], found["subject"] or "", found["value"], found["state"]))
    missing = [name for name in ("spec", "host", "operation", "date") if name not in fields]
    if missing:
        raise ValueError(f"{missing[0]!r} is missing")
    day = date.fromisoformat(fields["date"])
    return Publication(fields["spec"], fields["host"], fields["operation"], day, tuple(facts))


def _fields(lines: Sequence[str]) -> dict[str, str]:
    found: Iterable[re.Match[str] | None] = map(_FIELD.fullmatch, lines)
    return {match[1]: match[2] for match in found if match is not None}


def _label(fact: PublishedFact) -> str:
    words = {"doubles": "double reference", "refusal": "refusal"}
    known = words.get(fact.name, fact.name.replace("_", " ") if fact.name in FACTS else sanitize(fact.name, _MAX_TEXT))
    return f"{known} {sanitize(fact.subject, _MAX_TEXT)}".rstrip()
