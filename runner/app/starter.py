"""The first manifest of a job, written for a person: it plans cleanly as it stands, and its comments say what else is.

Every commented line is valid once its `# ` is taken away; a test takes them away one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.app.columns import is_variable
from runner.app.commented import PICTURE, example, facts, line, scalar
from runner.errors import UsageError
from runner.providers import spec as specs
from runner.report.text import harmless, many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.app.columns import Table
    from runner.providers.catalogue import Catalogue, Shape
    from runner.providers.spec import Model, Parameter, Spec

#: tasks that a manifest without `limits.max_tasks` may come to
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Start:
    """What the manifest is made for."""

    spec: Spec
    #: its name in the catalogue
    model: str
    shape: Shape
    #: the manifest's own path, as messages and comments name it
    manifest: str
    #: where editors find the schema
    schema: str
    #: the sets of environment variables, each of which is enough
    credentials: tuple[tuple[str, ...], ...]
    #: the person's own rows, and their path as the manifest names it
    table: Table | None = None
    data: str = ""

    @property
    def in_sandbox(self) -> bool:
        """Whether the sandbox serves the provider: it knows those that we bring."""
        return self.spec.name in specs.names()

    @property
    def entry(self) -> Model:
        return self.spec.models[self.model]


def start(catalogue: Catalogue, spec: Spec, model: str | None, **given: Any) -> Start:
    """The wish for a model, or for the provider's first one that needs nothing but words; raises UsageError."""
    if model is not None:
        shape = catalogue.find(spec.name, model)
        return Start(spec, _known(spec, shape), shape, **given)
    starts = (Start(spec, name, catalogue.find(spec.name, name), **given) for name in spec.models)
    first = next((each for each in starts if set(_needed(each)) == {"prompt"}), None)
    if first is None:
        raise UsageError(f"{spec.name} has no model that takes words alone", hint="Choose one with --model.")
    return first


def _known(spec: Spec, shape: Shape) -> str:
    """The catalogue's name of a model."""
    names = (shape.code, f"{shape.operation}/{shape.code}")
    return next(name for name, entry in spec.models.items() if name in names and entry.operation == shape.operation)


def compose(wish: Start) -> str:
    """The manifest's text; raises UsageError where no template can name a column."""
    parts = (_head(wish), _params(wish), _rows(wish), _matrix(wish), _more(wish))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(wish: Start) -> Iterator[str]:
    keys = " or ".join(" + ".join(names) for names in wish.credentials)
    path = harmless(wish.manifest, 80)
    pretend = (f"runner run {path} --sandbox", "makes it with pretend providers; nothing is paid")
    commands = [
        (f"runner plan {path}", "shows what would be sent; sends nothing"),
        *([pretend] if wish.in_sandbox else []),
        (f"runner run {path}", f"for real; needs {keys}"),
    ]
    width = max(len(command) for command, _ in commands)
    yield f"# yaml-language-server: $schema={wish.schema}"
    yield "# A manifest is a job: each row of `items`, with each combination of `matrix`, is one paid request."
    for command, about in commands:
        yield f"#   {command:<{width}}   {about}"
    yield "version: 1"
    yield line(f"provider: {scalar(wish.spec.name)}", f"{wish.spec.title}; `runner providers` lists all")
    yield line(f"model: {scalar(wish.model)}", f"`runner models {wish.spec.name}` lists {len(wish.spec.models)}")


def _params(wish: Start) -> Iterator[str]:
    written = _written(wish)
    yield line(
        "params:" if written else "# params:", "for every task; a column of the same name sets what is not said here"
    )
    for name, (own, parameter) in sorted(_named(wish.entry).items(), key=lambda item: item[0] not in written):
        known = facts(parameter, "" if name == own else f"{own} at {wish.spec.name}")
        if name in written:
            yield line(f"  {name}: {written[name]}", known)
        elif column := _column(wish, name, own):
            yield f"  # {name} comes from the column {column}"
        else:
            yield line(f"  # {name}: {scalar(example(parameter))}", known)


def _written(wish: Start) -> dict[str, str]:
    """What `params` must say, as YAML, where no column says it."""
    needed = _needed(wish)
    named = _named(wish.entry)
    return {name: text for name, text in needed.items() if not _column(wish, name, named[name][0])}


def _needed(wish: Start) -> dict[str, str]:
    """Every parameter that a request of this model cannot do without, as YAML; a prompt always, where one is taken."""
    named = _named(wish.entry)
    values = {name: example(each) for name, (_, each) in named.items() if each.required and each.default is None}
    values |= {"prompt": "a heron"} if "prompt" in named else {}
    if "image" in named and wish.shape.request(values)[1]:
        values["image"] = PICTURE
    texts = {name: scalar(value) for name, value in values.items()}
    if "prompt" in texts:
        texts["prompt"] = _prompt(wish)
    links = wish.table.image() if wish.table else None
    if "image" in texts and links:
        texts["image"] = f'"{{{{ {links} }}}}"'
    return texts


def _prompt(wish: Start) -> str:
    if wish.table is None:
        return '"{{ subject }}, {{ light }}"'
    column = wish.table.prompt(wish.shape.takes)
    if column is None and not _column(wish, "prompt", _named(wish.entry)["prompt"][0]):
        raise UsageError(
            f"{wish.data} has no column that a prompt can be made of",
            hint="A template names letters, digits and _: rename a column, e.g. to `prompt`.",
        )
    return f'"{{{{ {column} }}}}"'


def _column(wish: Start, name: str, own: str) -> str | None:
    """The column that sets this parameter by its name."""
    return next((each for each in (name, own) if wish.table and each in wish.table.values), None)


def _named(model: Model) -> dict[str, tuple[str, Parameter]]:
    """Every parameter by the name that a manifest should use: the common one where there is one."""
    return {next(iter(each.common), own): (own, each) for own, each in model.parameters.items()}


def _rows(wish: Start) -> Iterator[str]:
    if wish.table is None:
        yield line("items:", "a row each; or from your own table: `runner init --items FILE.csv`")
        yield "  - {subject: a lighthouse on a cliff}"
        yield "  - {subject: 江南水乡的乌篷船}"
        return
    yield "items:"
    yield line(f"  file: {scalar(wish.data)}", f"{many(wish.table.rows, 'row')}; an empty cell sets nothing")
    for name in wish.table.values:
        yield f"  # column {harmless(name, 60)}: {_use(wish, name)}"


def _use(wish: Start, name: str) -> str:
    if name in {"provider", "model"}:
        return f"not looked at, since `{name}` stands above"
    if wish.shape.takes(name):
        return "sets the parameter of that name"
    return (
        f"the variable {{{{ {harmless(name, 60)} }}}}"
        if is_variable(name)
        else "to use it in a template, rename it: letters, digits, _"
    )


def _matrix(wish: Start) -> Iterator[str]:
    about = "each row with each combination; an axis named like a parameter sets it"
    if wish.table is None:
        yield line("matrix:", about)
        yield "  light: [morning fog, dusk]"
    else:
        yield line("# matrix:", about)
        yield "#   light: [morning fog, dusk]"


def _more(wish: Start) -> Iterator[str]:
    rows = wish.table.rows if wish.table else 0
    yield line("# repeat: 2", "how many of each; without it identical tasks merge")
    yield line("# output: {dir: out/first}", "default: out/ and the manifest's name, beside it")
    yield line("# cost: 4", f"{wish.spec.unit} a task, where `runner plan` says that nobody knows the price")
    if rows > _MOST:
        yield line(
            f"limits: {{max_tasks: {rows}}}", f"your rows; more than {_MOST:,} must be asked for; also: qps, deadline"
        )
    else:
        yield line(
            f"# limits: {{qps: {wish.spec.limits.submit}}}", "what your account may do; also: max_tasks, deadline"
        )
