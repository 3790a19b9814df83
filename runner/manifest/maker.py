"""Turn each combination and each number of `repeat` into a draft or into diagnostics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.lifecycle.task import Draft
from runner.manifest import identity
from runner.manifest.templates import TemplateError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from runner.manifest.blame import Provenance
    from runner.manifest.bounds import TaskLimit
    from runner.manifest.combine import Combination
    from runner.manifest.naming import OutputNamer
    from runner.manifest.recipe import RequestTemplate
    from runner.manifest.recipes import RequestTemplates
    from runner.manifest.twins import Duplicates
    from runner.manifest.uses import UnusedInputs


class DraftBuilder:
    """Builder of drafts, counted in `draft_count`. Errors in `broken` parameters have been reported already."""

    def __init__(
        self,
        templates: RequestTemplates,
        namer: OutputNamer,
        unused: UnusedInputs,
        duplicates: Duplicates,
        limit: TaskLimit,
        provenance: Provenance,
        *,
        broken: Collection[str],
        repeat: int,
    ) -> None:
        self.draft_count = 0
        self._templates, self._namer, self._unused = templates, namer, unused
        self._duplicates, self._limit, self._provenance = duplicates, limit, provenance
        self._broken = broken
        self._repeats = range(1, repeat + 1)

    def build(self, combination: Combination) -> Iterator[Draft]:
        """Yield the drafts of one combination. Stop early when there are too many tasks."""
        known = {**combination.row.values, **combination.given}
        template = self._templates.get(combination)
        if template and (template.ignored or combination.changed_by):
            self._unused.check_task(template, combination, known)
        for repeat in self._repeats:
            draft = self._build_draft(template, combination, known, repeat) if template else None
            if draft is not None:
                yield draft
            elif self._limit.exceeded or self._limit.count_idle():
                return

    def _build_draft(
        self, template: RequestTemplate, combination: Combination, known: dict[str, Any], repeat: int
    ) -> Draft | None:
        index = self.draft_count + 1
        variables = {**known, "index": index, "repeat": repeat}
        if None in known.values():
            variables = {name: value for name, value in variables.items() if value is not None}
        try:
            params = template.render_params(combination.row.values, combination.given, variables)
        except TemplateError as error:
            self._provenance.report_template_error(error, combination)
            return None
        request, key = self._request_and_key(template, combination, params, repeat)
        digest = bytes.fromhex(key)
        if not key or self._duplicates.merge_if_known(digest, combination) or self._limit.check_next(self.draft_count):
            return None
        self._duplicates.remember(digest, combination, index)
        self.draft_count = index
        name = self._output_name(template, combination, key, variables, params)
        model = template.model
        return Draft(key, index, repeat, known, template.provider, model.operation, model.code, request, name,
                     self._limit.check_slots(model.slots(request)))  # fmt: skip

    def _request_and_key(
        self, template: RequestTemplate, combination: Combination, params: Mapping[str, Any], repeat: int
    ) -> tuple[dict[str, Any], str]:
        """Return the request and the key of a task.

        Report content that cannot be sent as JSON, and return an empty key for it.
        """
        model = template.model
        request, diagnostics = model.request(params)
        for diagnostic in diagnostics:
            if diagnostic.name not in self._broken:
                self._provenance.report_parameter(diagnostic, combination, model)
        try:
            return request, identity.task_key(template.provider, model.operation, model.code, request, repeat)
        except TypeError as error:
            self._provenance.report_at(("params",), f"cannot be sent as JSON: {error}", "write long numbers in quotes")
            return request, ""

    def _output_name(
        self,
        template: RequestTemplate,
        combination: Combination,
        key: str,
        variables: Mapping[str, Any],
        params: Mapping[str, Any],
    ) -> str:
        try:
            name = self._namer.name(self.draft_count, key, template, variables, params)
        except TemplateError as error:
            error.path = ("output", "name")
            self._provenance.report_template_error(error, combination)
            return ""
        here = (self.draft_count, combination.row.line)
        if earlier := self._namer.find_same_name(name, *here):
            both = f"{self._provenance.describe_task(earlier)} and {self._provenance.describe_task(here)}"
            self._provenance.report_at(
                ("output", "name"), f"{both} are both called `{name}`", "begin it with `{{ index }}-`"
            )
        return name
