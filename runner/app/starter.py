"""`init`: write a first manifest, which can be planned as it stands and whose comments show further options.

Every commented line is valid without its `# `. A test removes them one by one.
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

#: tasks that a manifest may have without `limits.max_tasks`
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Start:
    """Provider, model and data for which a manifest is written."""

    spec: Spec
    #: the model's name in the catalogue
    model: str
    shape: Shape
    #: path of the manifest, as comments name it
    manifest: str
    #: path of the schema, for editors
    schema: str
    #: sets of environment variables, each of which is a complete credential
    credentials: tuple[tuple[str, ...], ...]
    #: sample of the user's data file
    table: Table | None = None
    #: path of the data file, as the manifest names it
    data: str = ""

    @property
    def in_sandbox(self) -> bool:
        """Return True if the sandbox serves the provider, as it does all built-in ones."""
        return self.spec.name in specs.names()

    @property
    def entry(self) -> Model:
        """Return the spec's entry of the model."""
        return self.spec.models[self.model]


def start(catalogue: Catalogue, spec: Spec, model: str | None, **given: Any) -> Start:
    """Return the options for a model, by default for the provider's first one that needs only a prompt.

    `given` are further fields of the options. Raises UsageError if there is no such model.
    """
    if model is not None:
        shape = catalogue.find(spec.name, model)
        return Start(spec, _known(spec, shape), shape, **given)
    starts = (Start(spec, name, catalogue.find(spec.name, name), **given) for name in spec.models)
    first = next((each for each in starts if set(_needed(each)) == {"prompt"}), None)
    if first is None:
        raise UsageError(f"{spec.name} has no model that takes words alone", hint="Choose one with --model.")
    return first


def _known(spec: Spec, shape: Shape) -> str:
    """Return the name of a model in the provider's catalogue."""
    names = (shape.code, f"{shape.operation}/{shape.code}")
    return next(name for name, entry in spec.models.items() if name in names and entry.operation == shape.operation)


def compose(options: Start) -> str:
    """Return the manifest's text.

    Raises UsageError if no column suits a prompt.
    """
    parts = (_head(options), _params(options), _rows(options), _matrix(options), _more(options))
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _head(options: Start) -> Iterator[str]:
    """Yield the lines with the commands to use, the provider and the model."""
    keys = " or ".join(" + ".join(names) for names in options.credentials)
    path = harmless(options.manifest, 80)
    sandbox = (f"runner run {path} --sandbox", "makes it with pretend providers; nothing is paid")
    commands = [
        (f"runner plan {path}", "shows what would be sent; sends nothing"),
        *([sandbox] if options.in_sandbox else []),
        (f"runner run {path}", f"for real; needs {keys}"),
    ]
    width = max(len(command) for command, _ in commands)
    yield f"# yaml-language-server: $schema={options.schema}"
    yield "# A manifest is a job: each row of `items`, with each combination of `matrix`, is one paid request."
    for command, about in commands:
        yield f"#   {command:<{width}}   {about}"
    yield "version: 1"
    yield line(f"provider: {scalar(options.spec.name)}", f"{options.spec.title}; `runner providers` lists all")
    models = f"`runner models {options.spec.name}` lists {len(options.spec.models)}"
    yield line(f"model: {scalar(options.model)}", models)


def _params(options: Start) -> Iterator[str]:
    """Yield `params`: required parameters with a value, all others as comments."""
    written = _written(options)
    yield line(
        "params:" if written else "# params:", "for every task; a column of the same name sets what is not said here"
    )
    for name, (own, parameter) in sorted(_named(options.entry).items(), key=lambda item: item[0] not in written):
        comment = facts(parameter, "" if name == own else f"{own} at {options.spec.name}")
        if name in written:
            yield line(f"  {name}: {written[name]}", comment)
        elif column := _column(options, name, own):
            yield f"  # {name} comes from the column {column}"
        else:
            yield line(f"  # {name}: {scalar(example(parameter))}", comment)


def _written(options: Start) -> dict[str, str]:
    """Return the required parameters that no column sets, as YAML by name."""
    needed = _needed(options)
    named = _named(options.entry)
    return {name: text for name, text in needed.items() if not _column(options, name, named[name][0])}


def _needed(options: Start) -> dict[str, str]:
    """Return every parameter that the model requires, and its prompt if it takes one, as YAML by name."""
    named = _named(options.entry)
    values = {name: example(each) for name, (_, each) in named.items() if each.required and each.default is None}
    values |= {"prompt": "a heron"} if "prompt" in named else {}
    if "image" in named and options.shape.request(values)[1]:
        values["image"] = PICTURE
    texts = {name: scalar(value) for name, value in values.items()}
    if "prompt" in texts:
        texts["prompt"] = _prompt(options)
    links = options.table.image() if options.table else None
    if "image" in texts and links:
        texts["image"] = f'"{{{{ {links} }}}}"'
    return texts


def _prompt(options: Start) -> str:
    """Return a template for the prompt as YAML.

    Raises UsageError if no column suits one.
    """
    if options.table is None:
        return '"{{ subject }}, {{ light }}"'
    column = options.table.prompt(options.shape.takes)
    if column is None and not _column(options, "prompt", _named(options.entry)["prompt"][0]):
        raise UsageError(
            f"{options.data} has no column that a prompt can be made of",
            hint="A template names letters, digits and _: rename a column, e.g. to `prompt`.",
        )
    return f'"{{{{ {column} }}}}"'


def _column(options: Start, name: str, own: str) -> str | None:
    """Return the column that sets a parameter by its common name or by the provider's own name, or None."""
    return next((each for each in (name, own) if options.table and each in options.table.values), None)


def _named(model: Model) -> dict[str, tuple[str, Parameter]]:
    """Return the provider's name and the definition of every parameter, by its common name if it has one."""
    return {next(iter(each.common), own): (own, each) for own, each in model.parameters.items()}


def _rows(options: Start) -> Iterator[str]:
    """Yield `items`: the user's data file with a comment on each column, or two example rows."""
    if options.table is None:
        yield line("items:", "a row each; or from your own table: `runner init --items FILE.csv`")
        yield "  - {subject: a lighthouse on a cliff}"
        yield "  - {subject: 江南水乡的乌篷船}"
        return
    yield "items:"
    yield line(f"  file: {scalar(options.data)}", f"{many(options.table.rows, 'row')}; an empty cell sets nothing")
    for name in options.table.values:
        yield f"  # column {harmless(name, 60)}: {_use(options, name)}"


def _use(options: Start, name: str) -> str:
    """Return a comment on what a column does."""
    if name in {"provider", "model"}:
        return f"not looked at, since `{name}` stands above"
    if options.shape.takes(name):
        return "sets the parameter of that name"
    return (
        f"the variable {{{{ {harmless(name, 60)} }}}}"
        if is_variable(name)
        else "to use it in a template, rename it: letters, digits, _"
    )


def _matrix(options: Start) -> Iterator[str]:
    """Yield `matrix`, as a comment if the user has a data file."""
    about = "each row with each combination; an axis named like a parameter sets it"
    if options.table is None:
        yield line("matrix:", about)
        yield "  light: [morning fog, dusk]"
    else:
        yield line("# matrix:", about)
        yield "#   light: [morning fog, dusk]"


def _more(options: Start) -> Iterator[str]:
    """Yield further keys as comments, and `limits` if the data file has more rows than the default limit."""
    rows = options.table.rows if options.table else 0
    yield line("# repeat: 2", "how many of each; without it identical tasks merge")
    yield line("# output: {dir: out/first}", "default: out/ and the manifest's name, beside it")
    yield line("# cost: 4", f"{options.spec.unit} a task, where `runner plan` says that nobody knows the price")
    if rows > _MOST:
        yield line(
            f"limits: {{max_tasks: {rows}}}", f"your rows; more than {_MOST:,} must be asked for; also: qps, deadline"
        )
    else:
        yield line(
            f"# limits: {{qps: {options.spec.limits.submit}}}", "what your account may do; also: max_tasks, deadline"
        )
