"""`init`: write a first manifest, which can be planned as it stands and whose comments show further options.

Every commented line is valid without its `# `. A test removes them one by one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import orjson

from runner.errors import UsageError
from runner.manifest import rows as items
from runner.manifest.diagnostics import Diagnostics
from runner.providers import spec as specs
from runner.providers.catalogue import TYPE_NAMES
from runner.text import pluralize, sanitize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from runner.providers.catalogue import Catalogue, ModelSchema
    from runner.providers.spec import Model, Parameter, Spec


#: tasks that a manifest may have without `limits.max_tasks`
_MAX_TASKS = 10_000


@dataclass(frozen=True, slots=True)
class TableSample:
    """Number of rows and first values of a data file."""

    rows: int
    #: values of the first rows, without empty ones, by column in the file's order
    values: Mapping[str, Sequence[str]]

    def prompt_column(self, taken: Callable[[str], bool]) -> str | None:
        """Return the column that reads most like a prompt, or None.

        A template must be able to name it, and it must not set a parameter: `taken(name)` is true for those.
        """
        usable = [name for name in self.values if is_variable(name) and not taken(name)]
        named = [name for usual in _PROMPT_NAMES for name in usable if name.lower() == usual]
        if named or not usable:
            return named[0] if named else None
        return max(usable, key=self._wordiness)

    def image_column(self) -> str | None:
        """Return the first column that holds only links, or None."""
        return next((name for name, values in self.values.items() if is_variable(name) and _are_links(values)), None)

    def _wordiness(self, name: str) -> float:
        """Return the average number of letters of a value, lowered for columns with gaps, links or figures."""
        letters = sum(sum(map(str.isalpha, value)) for value in self.values[name] if not _URL.match(value))
        return letters / min(self.rows, _SAMPLED_ROWS) * len(self.values[name])


@dataclass(frozen=True, slots=True)
class StarterOptions:
    """Provider, model and data for which a manifest is written."""

    spec: Spec
    #: the model's name in the catalogue
    model: str
    shape: ModelSchema
    #: path of the manifest, as comments name it
    manifest: str
    #: path of the schema, for editors
    schema: str
    #: sets of environment variables, each of which is a complete credential
    credentials: tuple[tuple[str, ...], ...]
    #: sample of the user's data file
    table: TableSample | None = None
    #: path of the data file, as the manifest names it
    data: str = ""

    @property
    def in_sandbox(self) -> bool:
        """Return True if the sandbox serves the provider, as it does all built-in ones."""
        return self.spec.name in specs.spec_paths()

    @property
    def entry(self) -> Model:
        """Return the spec's entry of the model."""
        return self.spec.models[self.model]


def starter_options(catalogue: Catalogue, spec: Spec, model: str | None, **given: Any) -> StarterOptions:
    """Return the options for a model, by default for the provider's first one that needs only a prompt.

    `given` are further fields of the options. Raises UsageError if there is no such model.
    """
    if model is not None:
        shape = catalogue.find(spec.name, model)
        return StarterOptions(spec, _catalogue_name(spec, shape), shape, **given)
    starts = (StarterOptions(spec, name, catalogue.find(spec.name, name), **given) for name in spec.models)
    first = next((each for each in starts if set(_required_params(each)) == {"prompt"}), None)
    if first is None:
        raise UsageError(f"{spec.name} has no model that takes words alone", hint="Choose one with --model.")
    return first


def _catalogue_name(spec: Spec, shape: ModelSchema) -> str:
    """Return the name of a model in the provider's catalogue."""
    names = (shape.code, f"{shape.operation}/{shape.code}")
    return next(name for name, entry in spec.models.items() if name in names and entry.operation == shape.operation)


def compose_manifest(options: StarterOptions) -> str:
    """Return the manifest's text.

    Raises UsageError if no column suits a prompt.
    """
    parts = (
        _header_lines(options),
        _params_lines(options),
        _items_lines(options),
        _matrix_lines(options),
        _option_lines(options),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _header_lines(options: StarterOptions) -> Iterator[str]:
    """Yield the lines with the commands to use, the provider and the model."""
    keys = " or ".join(" + ".join(names) for names in options.credentials)
    path = sanitize(options.manifest, 80)
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
    yield commented_line(
        f"provider: {yaml_scalar(options.spec.name)}", f"{options.spec.title}; `runner providers` lists all"
    )
    models = f"`runner models {options.spec.name}` lists {len(options.spec.models)}"
    yield commented_line(f"model: {yaml_scalar(options.model)}", models)


def _params_lines(options: StarterOptions) -> Iterator[str]:
    """Yield `params`: required parameters with a value, all others as comments."""
    written = _written_params(options)
    yield commented_line(
        "params:" if written else "# params:", "for every task; a column of the same name sets what is not said here"
    )
    for name, (own, parameter) in sorted(
        _parameters_by_name(options.entry).items(), key=lambda item: item[0] not in written
    ):
        comment = parameter_description(parameter, "" if name == own else f"{own} at {options.spec.name}")
        if name in written:
            yield commented_line(f"  {name}: {written[name]}", comment)
        elif column := _parameter_column(options, name, own):
            yield f"  # {name} comes from the column {column}"
        else:
            yield commented_line(f"  # {name}: {yaml_scalar(example_value(parameter))}", comment)


def _written_params(options: StarterOptions) -> dict[str, str]:
    """Return the required parameters that no column sets, as YAML by name."""
    needed = _required_params(options)
    named = _parameters_by_name(options.entry)
    return {name: text for name, text in needed.items() if not _parameter_column(options, name, named[name][0])}


def _required_params(options: StarterOptions) -> dict[str, str]:
    """Return every parameter that the model requires, and its prompt if it takes one, as YAML by name."""
    named = _parameters_by_name(options.entry)
    values = {name: example_value(each) for name, (_, each) in named.items() if each.required and each.default is None}
    values |= {"prompt": "a heron"} if "prompt" in named else {}
    if "image" in named and options.shape.request(values)[1]:
        values["image"] = EXAMPLE_IMAGE
    texts = {name: yaml_scalar(value) for name, value in values.items()}
    if "prompt" in texts:
        texts["prompt"] = _prompt_template(options)
    links = options.table.image_column() if options.table else None
    if "image" in texts and links:
        texts["image"] = f'"{{{{ {links} }}}}"'
    return texts


def _prompt_template(options: StarterOptions) -> str:
    """Return a template for the prompt as YAML.

    Raises UsageError if no column suits one.
    """
    if options.table is None:
        return '"{{ subject }}, {{ light }}"'
    column = options.table.prompt_column(options.shape.takes)
    if column is None and not _parameter_column(options, "prompt", _parameters_by_name(options.entry)["prompt"][0]):
        raise UsageError(
            f"{options.data} has no column that a prompt can be made of",
            hint="A template names letters, digits and _: rename a column, e.g. to `prompt`.",
        )
    return f'"{{{{ {column} }}}}"'


def _parameter_column(options: StarterOptions, name: str, own: str) -> str | None:
    """Return the column that sets a parameter by its common name or by the provider's own name, or None."""
    return next((each for each in (name, own) if options.table and each in options.table.values), None)


def _parameters_by_name(model: Model) -> dict[str, tuple[str, Parameter]]:
    """Return the provider's name and the definition of every parameter, by its common name if it has one."""
    return {next(iter(each.common), own): (own, each) for own, each in model.parameters.items()}


def _items_lines(options: StarterOptions) -> Iterator[str]:
    """Yield `items`: the user's data file with a comment on each column, or two example rows."""
    if options.table is None:
        yield commented_line("items:", "a row each; or from your own table: `runner init --items FILE.csv`")
        yield "  - {subject: a lighthouse on a cliff}"
        yield "  - {subject: 江南水乡的乌篷船}"
        return
    yield "items:"
    yield commented_line(
        f"  file: {yaml_scalar(options.data)}", f"{pluralize(options.table.rows, 'row')}; an empty cell sets nothing"
    )
    for name in options.table.values:
        yield f"  # column {sanitize(name, 60)}: {_column_comment(options, name)}"


def _column_comment(options: StarterOptions, name: str) -> str:
    """Return a comment on what a column does."""
    if name in {"provider", "model"}:
        return f"not looked at, since `{name}` stands above"
    if options.shape.takes(name):
        return "sets the parameter of that name"
    return (
        f"the variable {{{{ {sanitize(name, 60)} }}}}"
        if is_variable(name)
        else "to use it in a template, rename it: letters, digits, _"
    )


def _matrix_lines(options: StarterOptions) -> Iterator[str]:
    """Yield `matrix`, as a comment if the user has a data file."""
    about = "each row with each combination; an axis named like a parameter sets it"
    if options.table is None:
        yield commented_line("matrix:", about)
        yield "  light: [morning fog, dusk]"
    else:
        yield commented_line("# matrix:", about)
        yield "#   light: [morning fog, dusk]"


def _option_lines(options: StarterOptions) -> Iterator[str]:
    """Yield further keys as comments, and `limits` if the data file has more rows than the default limit."""
    rows = options.table.rows if options.table else 0
    yield commented_line("# repeat: 2", "how many of each; without it identical tasks merge")
    yield commented_line("# output: {dir: out/first}", "default: out/ and the manifest's name, beside it")
    yield commented_line(
        "# cost: 4", f"{options.spec.unit} a task, where `runner plan` says that nobody knows the price"
    )
    if rows > _MAX_TASKS:
        yield commented_line(
            f"limits: {{max_tasks: {rows}}}",
            f"your rows; more than {_MAX_TASKS:,} must be asked for; also: qps, deadline",
        )
    else:
        yield commented_line(
            f"# limits: {{qps: {options.spec.limits.submit}}}", "what your account may do; also: max_tasks, deadline"
        )


EXAMPLE_IMAGE = "https://example.com/first.png"
_MAX_WIDTH = 118
_COMMENT_COLUMN = 44
#: least characters of room for a comment
_MIN_COMMENT = 10
#: text that YAML 1.1 and 1.2 both read as text without quotes
_PLAIN_TEXT = re.compile(r"[A-Za-z][\w.-]*(?:/[\w.-]+)*")
_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def commented_line(text: str, comment: str) -> str:
    """Return the text with as much of its comment as fits, aligned with other comments if possible."""
    written = f"{text}{' ' * max(2, _COMMENT_COLUMN - _display_width(text))}# "
    room = _MAX_WIDTH - len(written)
    return f"{written}{sanitize(comment, room)}" if room >= _MIN_COMMENT else text


def _display_width(text: str) -> int:
    """Return the columns that a text takes in a terminal, two for each Chinese character."""
    return sum(1 + (east_asian_width(char) in {"W", "F"}) for char in text)


def parameter_description(parameter: Parameter, own: str) -> str:
    """Return the values that a parameter takes, in words, followed by `own` unless that is empty."""
    parts = [f"one of {', '.join(map(str, parameter.choices))}" if parameter.choices else TYPE_NAMES[parameter.type]]
    low, high = parameter.min, parameter.max_length if parameter.max_length is not None else parameter.max
    unit = " characters" if parameter.max_length is not None else " entries" if parameter.type == "list" else ""
    if low is not None and high is not None:
        parts.append(f"{low:g} to {high:g}{unit}")
    elif low is not None or high is not None:
        parts.append(f"at least {low:g}{unit}" if high is None else f"at most {high:g}{unit}")
    parts += ["required"] if parameter.required else []
    parts += [f"default {parameter.default}"] if parameter.default is not None else []
    return "; ".join([", ".join(parts), *([own] if own else [])])


def example_value(parameter: Parameter) -> Any:
    """Return a valid value of a parameter."""
    if parameter.default is not None or parameter.choices:
        return parameter.default if parameter.default is not None else (parameter.choices or ("",))[0]
    if parameter.type == "image" or "image" in parameter.common:
        return EXAMPLE_IMAGE
    least = 1 if parameter.min is None else parameter.min
    examples: dict[str, Any] = {"integer": int(least), "number": least, "boolean": True, "object": {}}
    return (
        [EXAMPLE_IMAGE] * int(parameter.min or 0) if parameter.type == "list" else examples.get(parameter.type, "text")
    )


def yaml_scalar(value: Any) -> str:
    """Return a value as YAML on one line, quoted if YAML 1.1 would not read it as plain text."""
    if isinstance(value, str) and _PLAIN_TEXT.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    return orjson.dumps(value).decode()


#: rows whose values are kept; all rows are counted
_SAMPLED_ROWS = 200
#: usual names of a column of prompts, best first
_PROMPT_NAMES = ("prompt", "提示词", "画面描述", "描述词", "描述", "description", "text", "文案", "subject", "主题")
#: reserved words of a template
_JINJA_WORDS = {"and", "or", "not", "if", "else", "in", "is", "true", "false", "none", "True", "False", "None"}
_URL = re.compile(r"https?://\S+\Z")


def is_variable(name: str) -> bool:
    """Return True if a template can name a column so."""
    return name.isidentifier() and name not in _JINJA_WORDS


def _are_links(values: Sequence[str]) -> bool:
    return bool(values) and all(_URL.match(value) for value in values)


def sample_table(path: Path) -> TableSample:
    """Read a data file once and return its sample.

    Raises UsageError or ManifestError for what is wrong in it.
    """
    if path.suffix.lower() not in items.SUFFIXES:
        raise UsageError(
            f"{path}: a data file ends in {', '.join(items.SUFFIXES)}", hint="Convert it; spreadsheets save CSV UTF-8."
        )
    report = Diagnostics(str(path))
    count = 0
    values: dict[str, list[str]] = {}
    for row in items.read_rows(path, str(path), report):
        count += 1
        for name, value in row.values.items() if count <= _SAMPLED_ROWS else ():
            kept = [] if value in (None, "") or isinstance(value, dict | list) else [str(value)]
            values.setdefault(name, []).extend(kept)
    if report:
        error = report.error()
        if "iconv -f" in (hint := error.diagnostics[0].hint):
            raise UsageError(f"{path}: {error.diagnostics[0].message}", hint=hint[0].upper() + hint[1:])
        raise error
    return TableSample(count, values)
