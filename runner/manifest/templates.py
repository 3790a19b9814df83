"""Compile and render a safe subset of Jinja: names, parts of nested values, filters and conditions; no calls or loops.

A part of a value (`include[0].class`) is an entry of a mapping or a list of the data, never an attribute of a Python
object. `row["Product Name"]` is the column of that name, whatever signs are in it.

Only texts of the manifest are templates. The allowed syntax is a list of node types, so that new syntax of Jinja stays
rejected until it is reviewed and added.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from runner.manifest.positions import KeyPath

#: largest length of a template, of a value it uses and of its result, in characters
MAX_LENGTH = 20_000
#: largest depth of an expression
_MAX_DEPTH = 50
#: largest number of variables of one expression, since their joined values are in memory before they can be measured
_MAX_NAMES = 200
_ALLOWED = (
    nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Filter, nodes.Keyword,
    nodes.If, nodes.CondExpr, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Concat,
    nodes.Add, nodes.Sub, nodes.Div, nodes.FloorDiv, nodes.Neg, nodes.Pos, nodes.Getattr, nodes.Getitem,
)  # fmt: skip
_REJECTED: dict[type[nodes.Node], str] = {
    nodes.Call: "nothing can be called",
    nodes.For: "loops are not for templates; `matrix` and `items` multiply",
    nodes.Mul: "`*` is not for templates",
    nodes.Pow: "`**` is not for templates",
    nodes.Mod: "`%` is not for templates",
}
_ALLOWED_FILTERS = (
    "upper", "lower", "title", "capitalize", "trim", "default", "d", "length", "count", "wordcount", "truncate", "int",
    "float", "abs", "string", "first", "last", "urlencode", "striptags",
)  # fmt: skip
#: filters of values with parts
_PART_FILTERS = frozenset(("default", "d", "length", "count", "first", "last"))
_PART_NODES = (nodes.Getattr, nodes.Getitem)
#: name under which all columns stand: `row["Product Name"]`
_ROW = "row"
#: names that mean something else to Jinja
_JINJA_OBJECTS = frozenset(("self", "super", "caller", "loop", "varargs", "kwargs"))
#: characters of the name of a part in a message
_MAX_PART = 40
_PART_HINT = "name a part that every row has, or use the filter `default('')`"
#: words and signs between braces that may be the name of a column
_WRITTEN_NAME = re.compile(r"\{\{\s*(\w[^{}|'\"*%~=<>!+\[\]]*?)\s*\}\}")
#: image as a data: URL, or PNG, JPEG or WEBP as Base64
_IMAGE_TEXT = re.compile(r"data:image/|(?:iVBORw0KGgo|/9j/|UklGR)[A-Za-z0-9+/\s]*={0,2}\s*\Z")
_UNDEFINED = re.compile(r"'([^']*)' is undefined")


class TemplateError(Exception):
    """Error in a template or while rendering it. `missing` is the name of a variable without a value."""

    def __init__(self, message: str, hint: str = "", *, missing: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.missing = missing
        #: path of the template in the manifest, set by the caller that knows it
        self.path: KeyPath = ()


def variable_name(column: str) -> str:
    """Return the name of a column as a template can write it: `Product_Name` for `Product Name`."""
    name = re.sub(r"\W+", "_", column.strip()).strip("_")
    return f"_{name}" if name[:1].isdigit() else name


def _name_hint(text: str) -> str:
    """Return how to write what may be the name of a column and is none of a variable, or an empty text."""
    written = next((found[1] for found in _WRITTEN_NAME.finditer(text) if not found[1].isidentifier()), None)
    return f"a column `{written}` is written {{{{ {variable_name(written)} }}}}" if written is not None else ""


def is_template(text: str) -> bool:
    """Return whether a text of the manifest is a template."""
    return "{{" in text or "{%" in text


class Template:
    """Compiled template. `names` are the variables that it uses."""

    def __init__(self, text: str) -> None:
        tree = _parse(text)
        parts: Iterable[Any] = tree.find_all(_PART_NODES)
        columns = {id(node.node): column for node in parts if (column := _column_of_row(node))}
        self._has_row = bool(columns)
        names = {node.name for node in tree.find_all(nodes.Name) if id(node) not in columns}
        self.names = frozenset(names.union(columns.values()))
        try:
            self._template = _environment().from_string(tree)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"not a template: {error.message}", "correct it") from None
        except (RecursionError, SyntaxError, MemoryError, ArithmeticError) as error:
            raise TemplateError(f"not a template: {type(error).__name__}", "simplify it") from None
        self.parts = tuple(_plain_parts(tree))

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return the rendered text. Raise TemplateError if that fails or the text is too long."""
        if self.parts:
            text = self._join_parts(variables)
            if text is not None:
                return text
        return self._render_jinja(variables)

    def _join_parts(self, variables: Mapping[str, Any]) -> str | None:
        """Return the text of a template of plain names, five times as fast as Jinja.

        Return None if that fails, so that Jinja gives the reason.
        """
        try:
            parts = [part if is_text else _text(variables[part]) for is_text, part in self.parts]
        except KeyError:
            return None
        if len(parts) == 1 and _IMAGE_TEXT.match(parts[0]):
            return parts[0]  # an image in a cell, whatever its length: alone it cannot grow
        # measure before joining: a long value that is named a thousand times would fill the memory
        return "".join(parts) if sum(map(len, parts)) <= MAX_LENGTH else None

    def _render_jinja(self, variables: Mapping[str, Any]) -> str:
        for name in self.names:
            value = variables.get(name)
            if isinstance(value, str) and len(value) > MAX_LENGTH:
                raise TemplateError(f"`{name}` has {len(value):,} characters; at most {MAX_LENGTH:,}", "shorten it")
        try:
            length, chunks = 0, []
            values = {**variables, _ROW: _Row(variables)} if self._has_row else dict(variables)
            for chunk in self._template.root_render_func(self._template.new_context(values)):
                chunks.append(chunk)
                length += len(chunk)
                if length > MAX_LENGTH:
                    raise _length_error()
            return "".join(chunks)
        except jinja2.UndefinedError as error:
            found = _UNDEFINED.search(str(error))
            raise TemplateError(str(error), _PART_HINT, missing=found[1] if found else "") from None
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise TemplateError(f"the template fails: {error}", "correct it, or the value it is given") from None


def _text(value: Any) -> str:
    """Return a value as a template puts it into a text. Raise TemplateError for one with parts."""
    if type(value) is str:
        return value
    if _is_nested(value):
        raise _nested_error()
    return str(value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict | list) for each in value))


def _nested_error() -> TemplateError:
    return TemplateError("a value with parts of its own cannot stand in a text", "name a part: {{ include[0].class }}")


def _length_error() -> TemplateError:
    return TemplateError(f"the result has more than {MAX_LENGTH:,} characters", "shorten the template")


def _parse(text: str) -> nodes.Template:
    if len(text) > MAX_LENGTH:
        raise TemplateError(f"a template of {len(text):,} characters; at most {MAX_LENGTH:,}", "shorten it")
    try:
        tree = _environment().parse(text)
    except jinja2.TemplateSyntaxError as error:
        hint = _name_hint(text) or "a variable is letters, digits and `_`: {{ name }}"
        raise TemplateError(f"not a template: {error.message} (its line {error.lineno})", hint) from None
    except (RecursionError, ValueError) as error:
        raise TemplateError(f"not a template: {type(error).__name__}", "simplify it") from None
    _check_nodes(tree, _name_hint(text))
    _check_variable_count(tree)
    return tree


def _check_nodes(tree: nodes.Template, name_hint: str) -> None:
    level: list[nodes.Node] = list(tree.iter_child_nodes())
    for _ in range(_MAX_DEPTH):
        for node in level:
            if not isinstance(node, _ALLOWED):
                reason = _REJECTED.get(type(node), f"`{type(node).__name__.lower()}` is not for templates")
                raise TemplateError(reason, name_hint or "use {{ name }}, filters and {% if %}")
            if isinstance(node, _PART_NODES):
                _check_part(node)
            if isinstance(node, nodes.Filter) and node.name not in _environment().filters:
                known = ", ".join(sorted(_environment().filters))
                raise TemplateError(f"no filter `{node.name}`", f"there are {known}")
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise TemplateError(f"an expression nested deeper than {_MAX_DEPTH}", "simplify it")


def _check_part(node: nodes.Getattr | nodes.Getitem) -> None:
    """Reject what is no part of a variable by a written name or number."""
    part: Any = node.attr if isinstance(node, nodes.Getattr) else None
    if isinstance(node, nodes.Getitem):
        arg = node.arg.node if isinstance(node.arg, nodes.Neg) else node.arg
        part = arg.value if isinstance(arg, nodes.Const) else None
    is_named = type(part) in {str, int} and not (isinstance(part, str) and part.startswith("__"))
    base = node.node
    is_of_variable = isinstance(base, (*_PART_NODES, nodes.Filter)) or (
        isinstance(base, nodes.Name) and base.name not in _JINJA_OBJECTS
    )
    if not is_named or not is_of_variable:
        message = "a part of a variable is named by a word or a number"
        raise TemplateError(message, 'write {{ include[0].class }} or {{ row["Product Name"] }}')


def _column_of_row(node: nodes.Node) -> str:
    """Return the column that `row["name"]` or `row.name` means, and an empty text for anything else."""
    if not isinstance(node, _PART_NODES) or not isinstance(node.node, nodes.Name) or node.node.name != _ROW:
        return ""
    if isinstance(node, nodes.Getattr):
        return node.attr
    return node.arg.value if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str) else ""


def _check_variable_count(tree: nodes.Template) -> None:
    """Reject an expression that could hold thousands of long values at once.

    Jinja renders one `{{ }}` at a time, so a bound on each is enough.
    """
    shown = [node for output in tree.find_all(nodes.Output) for node in output.nodes]
    for part in [*shown, *(each.test for each in tree.find_all(nodes.If))]:
        count = isinstance(part, nodes.Name) + sum(1 for _ in part.find_all(nodes.Name))
        if count > _MAX_NAMES:
            raise TemplateError(f"an expression with {count:,} variables; at most {_MAX_NAMES}", "simplify it")


def _plain_parts(tree: nodes.Template) -> list[tuple[bool, str]]:
    """Return (is text, text or name) for each part of a template of texts and names, else nothing."""
    parts = []
    for output in tree.body:
        for node in output.iter_child_nodes() if isinstance(output, nodes.Output) else [output]:
            match node:
                case nodes.TemplateData(data=data):
                    parts.append((True, data))
                case nodes.Name(name=name):
                    parts.append((False, name))
                case nodes.Getitem() | nodes.Getattr() if column := _column_of_row(node):
                    parts.append((False, column))
                case _:
                    return []
    return parts


class _Row(dict[str, Any]):
    """The variables of one task by their names."""


class _DataEnvironment(ImmutableSandboxedEnvironment):
    """Environment in which the parts of a value are entries of its mappings and lists, and nothing else."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return the entry of a mapping."""
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return the entry of a mapping or a list, undefined if there is none."""
        value: Any = None
        if isinstance(obj, jinja2.Undefined):
            return obj
        if isinstance(obj, dict):
            value = obj.get(argument)
        elif isinstance(obj, list) and type(argument) is int and -len(obj) <= argument < len(obj):
            value = obj[argument]
        if value is None:
            name = str(argument)[:_MAX_PART]
            return self.undefined(name=name) if type(obj) is _Row else self.undefined(f"there is no part `{name}`")
        if type(value) is str and len(value) > MAX_LENGTH:
            raise TemplateError(f"`{argument}` has {len(value):,} characters; at most {MAX_LENGTH:,}", "shorten it")
        return value


def _finalize(value: Any) -> Any:
    if _is_nested(value):
        raise _nested_error()
    return value


@cache
def _environment() -> jinja2.Environment:
    environment = _DataEnvironment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        optimized=False,
        finalize=_finalize,
    )
    ours: dict[str, Callable[..., Any]] = {"join": _join, "replace": _replace, "round": _round}
    builtin = {name: environment.filters[name] for name in _ALLOWED_FILTERS}
    environment.filters = {
        name: _length_limited(function, takes_parts=name in _PART_FILTERS)
        for name, function in (builtin | ours).items()
    }
    environment.globals.clear()
    return environment


def _length_limited(function: Callable[..., Any], *, takes_parts: bool) -> Callable[..., Any]:
    """Return a filter that raises TemplateError if its result is too long, or if it is given what it cannot show."""

    def limited(*args: Any, **options: Any) -> Any:
        if not takes_parts and any(map(_is_nested, args)):
            raise _nested_error()
        value = function(*args, **options)
        if isinstance(value, str) and len(value) > MAX_LENGTH:
            raise _length_error()
        return value

    # Jinja marks a filter that gets the environment or context as its first argument with an attribute
    limited.__dict__.update(vars(function) if hasattr(function, "__dict__") else {})
    return limited


def _join(values: Any, separator: str = "") -> str:
    return str(separator).join(str(value) for value in islice(values, MAX_LENGTH))


def _replace(value: Any, old: str, new: str) -> str:
    text, old, new = str(value), str(old), str(new)
    if len(text) + text.count(old) * len(new) > 2 * MAX_LENGTH:
        raise _length_error()
    return text.replace(old, new)


def _round(value: Any, digits: int = 0) -> float:
    return round(float(value), max(-20, min(20, int(digits))))
