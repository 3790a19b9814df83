"""Choose the model of a task: by the matrix, else by the manifest, else by the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import UsageError
from runner.manifest.recipe import RequestTemplate
from runner.manifest.teach import describe_value, normalize_name

if TYPE_CHECKING:
    from runner.manifest.blame import Provenance
    from runner.manifest.combine import Combination
    from runner.manifest.model import Manifest
    from runner.manifest.recipe import ModelCatalogue, Param
    from runner.manifest.uses import UnusedInputs


class RequestTemplates:
    """Request templates of the models of a job, each created at its first use."""

    def __init__(
        self,
        manifest: Manifest,
        catalogue: ModelCatalogue,
        params: list[Param],
        provenance: Provenance,
        unused: UnusedInputs,
    ) -> None:
        self._manifest = manifest
        self._catalogue = catalogue
        self._params = params
        self._provenance = provenance
        self._unused = unused
        self._templates: dict[tuple[Any, Any], RequestTemplate | None] = {}

    @property
    def is_complete(self) -> bool:
        """Return whether every model was found."""
        return None not in self._templates.values()

    def get(self, combination: Combination) -> RequestTemplate | None:
        """Return the request template of a combination. Report an unknown model and return None."""
        chosen = self._chosen_name("provider", combination), self._chosen_name("model", combination)
        if not all(isinstance(name, str) for name in chosen):
            self._templates["", ""] = None
            return self._create(*chosen, combination)
        if chosen not in self._templates:
            self._templates[chosen] = self._create(*chosen, combination)
        return self._templates[chosen]

    def _chosen_name(self, name: str, combination: Combination) -> Any:
        if name in combination.given:
            return combination.given[name]
        return getattr(self._manifest, name) or combination.row.values.get(name)

    def _create(self, provider: Any, model: Any, combination: Combination) -> RequestTemplate | None:
        if not (self._check_name("provider", provider, combination) and self._check_name("model", model, combination)):
            return None
        try:
            description = self._catalogue.find(provider, model, unchecked=self._manifest.unchecked)
        except UsageError as error:
            self._provenance.report_model_choice(
                "model" if model in error.message else "provider", combination, error.message, error.hint
            )
            return None
        template = RequestTemplate(provider, description, self._params, self._manifest.matrix.axes)
        self._unused.add_template(template)
        return template

    def _check_name(self, name: str, value: Any, combination: Combination) -> bool:
        if isinstance(value, str) and value:
            return True
        if value or self._is_missing_here(name, combination):
            message = f"expected the name of a {name}, found {describe_value(value)}"
            similar = next(
                (column for column in combination.row.values if column != name and normalize_name(column) == name), ""
            )
            hint = f"call the column `{similar}` `{name}`" if similar else f"`runner {name}s` lists what there is"
            self._provenance.report_model_choice(name, combination, message, hint)
        return False

    def _is_missing_here(self, name: str, combination: Combination) -> bool:
        """Return whether to report a missing name here. If no task can have one, the parser has reported it."""
        source = self._manifest.items
        from_file = source is not None and source.file is not None
        return from_file or name in combination.row.values or self._manifest.matrix.provides(name)
