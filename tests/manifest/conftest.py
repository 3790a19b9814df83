"""Fixture to try manifests: a directory, and a catalogue of two models with a few parameters each."""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from runner.errors import ManifestError, ParameterDiagnostic, UsageError
from runner.manifest.expand import expand, parse_and_check
from runner.manifest.parser import parse
from runner.text import plain_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.errors import Diagnostic
    from runner.manifest.expand import ExpansionSummary
    from runner.manifest.parser import ParsedManifest
    from runner.tasks.models import Draft

HEAD = "version: 1\nprovider: fake\nmodel: ink\n"


@dataclass
class FakeShape:
    code: str = "ink"
    operation: str = "image"
    #: the provider's name by the common name and by itself
    names: dict[str, str] = field(
        default_factory=lambda: {"prompt": "ref_prompt"} | {n: n for n in ("aspect_ratio", "clarity", "n", "seed", "x")}
    )

    endpoint: str = "/image"
    implied: dict[str, Any] = field(default_factory=dict)

    def takes(self, name: str) -> bool:
        return name in self.names

    def parameter_names(self) -> set[str]:
        return {*self.names, *self.names.values()}

    def provider_names(self) -> set[str]:
        return {*self.parameter_names(), "negative_prompt"}

    def own_name(self, name: str) -> str | None:
        return self.names.get(name)

    def free_check(self, name: str) -> Callable[[Any], Any] | None:
        return (lambda value: value if type(value) is str else None) if name in {"prompt", "x"} else None

    def request(self, params: Mapping[str, Any]) -> tuple[dict[str, Any], list[ParameterDiagnostic]]:
        diagnostics = [
            ParameterDiagnostic(name, "is no parameter", "remove it") for name in params if name not in self.names
        ]
        if str(params.get("clarity", 1024)) not in {"1024", "2048"}:
            diagnostics.append(ParameterDiagnostic("clarity", f"{params['clarity']} is not 1024 or 2048", "choose one"))
        if not params.get("prompt"):
            diagnostics.append(ParameterDiagnostic("", "ink needs prompt", "add it", needs=("prompt",)))
        request = {self.names[name]: value for name, value in params.items() if name in self.names}
        return plain_numbers(request), diagnostics

    def slots(self, request: Mapping[str, Any]) -> int:
        return int(request.get("n", 1))


class FakeCatalogue:
    def __init__(self) -> None:
        self.shapes = {"ink": FakeShape(), "oil": FakeShape(code="oil-2")}

    def find(self, provider: str, model: str, *, unchecked: bool) -> FakeShape:
        if provider != "fake":
            raise UsageError(f"there is no provider {provider!r}", hint="did you mean fake?")
        if model not in self.shapes and not unchecked:
            raise UsageError(f"fake has no model {model!r}", hint="did you mean ink?")
        return self.shapes.get(model) or FakeShape(code=model)


@dataclass
class Bench:
    home: Path
    catalogue: FakeCatalogue = field(default_factory=FakeCatalogue)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.home / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def parsed(self, text: str, *, head: str = HEAD, out: Path | None = None) -> ParsedManifest:
        return parse((head + dedent(text)).encode(), self.home / "job.yaml", out=out)

    def drafts(self, text: str, *, head: str = HEAD) -> list[Draft]:
        return list(expand(self.parsed(text, head=head), self.catalogue))

    def prompts(self, text: str) -> list[str]:
        return [draft.request["ref_prompt"] for draft in self.drafts(text)]

    def examine(self, text: str | bytes, *, head: str = HEAD) -> ExpansionSummary:
        data = text if isinstance(text, bytes) else (head + dedent(text)).encode()
        return parse_and_check(data, self.home / "job.yaml", self.catalogue)[1]

    def warnings(self, text: str, *, head: str = HEAD) -> list[str]:
        """Return the warnings of a valid manifest, without its directory."""
        return [str(warning).replace(f"{self.home}/", "") for warning in self.examine(text, head=head).warnings]

    def errors(self, text: str | bytes, *, head: str = HEAD) -> list[Diagnostic]:
        """Return all errors of a manifest."""
        with pytest.raises(ManifestError) as caught:
            self.examine(text, head=head)
        return list(caught.value.diagnostics)

    def error(self, text: str | bytes, *, head: str = HEAD) -> str:
        """Return the only error of a manifest, without its directory."""
        found = self.errors(text, head=head)
        assert len(found) == 1, found
        return str(found[0]).replace(f"{self.home}/", "")


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)
