"""Keep the checked requests of one model, so that rows which differ in free values alone are checked by these alone.

A value is free if the model checks it by itself, whatever the others are: most texts, whole numbers and images. Two
tasks with the same other values then have the same request but for the free ones, and the contents that their two
hashes are taken of differ at known places alone. A task that is not known so is made the long way: what is kept here
changes no request, no hash and no message.
"""

from __future__ import annotations

from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from runner.manifest import identity
from runner.manifest.identity import HASH_BYTES
from runner.manifest.templates import TemplateError
from runner.text import WRITTEN_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from runner.manifest.params import Param, RequestTemplate

#: requests that are tried for keeping, by model: a column of numbers that are not free makes one of each row
_MOST_KEPT = 1_000
_END = b"0]"


class KnownTask(NamedTuple):
    """A task whose request differs from a checked one in free values alone. The hashes have 16 bytes."""

    inputs: _Inputs
    checked: _CheckedRequest
    #: free values as they are written, and as they are sent
    written: list[Any]
    values: list[Any]
    key: bytes
    goods: bytes

    @property
    def slots(self) -> int:
        """Return the number of the account's slots that the task takes."""
        return self.checked.slots

    def request(self) -> dict[str, Any]:
        """Return the parameters by the provider's names."""
        return self.checked.request | {self.inputs.owns[at]: self.values[at] for at in self.checked.order}

    def params(self) -> dict[str, Any]:
        """Return the parameters as they are written."""
        return self.checked.params | {self.inputs.free_names[at]: self.written[at] for at in self.checked.order}


class _CheckedRequest(NamedTuple):
    """A checked request, and the contents of its two hashes in parts, between which the free values stand."""

    request: dict[str, Any]
    params: dict[str, Any]
    slots: int
    #: positions of the free values in the order in which they stand in the contents
    order: tuple[int, ...]
    key_parts: tuple[bytes, ...]
    goods_parts: tuple[bytes, ...]

    def contents(self, values: list[Any], repeat: int) -> tuple[bytes, bytes]:
        """Return the contents of the key and of the goods with these free values."""
        end = b"%d]" % repeat
        key, goods = self.key_parts[0], self.goods_parts[0]
        for number, at in enumerate(self.order, 1):
            value = values[at]
            sent, canonical = orjson.dumps(value), identity.canonical(value)
            key += sent + self.key_parts[number]
            goods += (sent if canonical == value else orjson.dumps(canonical)) + self.goods_parts[number]
        return key + end, goods + end


class _Inputs:
    """Where the parameters of tasks come from that have the same columns and the same axes."""

    def __init__(
        self,
        names: tuple[str, ...],
        params: tuple[Param, ...],
        free_names: tuple[str, ...],
        free: tuple[tuple[str, Param | None, Callable[[Any], Any]], ...],
    ) -> None:
        #: columns and axes, and templates, whose values must be the same
        self.names, self.params = names, params
        #: names of the free parameters as they are written; those of the provider, each with its template and check
        self.free_names, self.free = free_names, free
        self.owns = tuple(own for own, _, _ in free)
        self.requests: dict[Any, _CheckedRequest | None] = {}

    def read(
        self, known: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> tuple[list[Any], list[Any], int, Any] | None:
        """Return the free values as written and as sent, the bits of the absent ones, and what tells requests apart.

        Return None if a value is none that can be checked by itself. Raise TemplateError if a text cannot be rendered.
        """
        written: list[Any] = []
        values: list[Any] = []
        absent = 0
        for name, (_, param, check) in zip(self.free_names, self.free, strict=True):
            value = known[name] if param is None else param.render(variables)
            if param is None and (value is None or value == ""):  # an empty cell sets nothing
                absent |= 1 << len(written)
                checked = None
            elif (checked := check(value)) is None or checked == "":
                return None
            written.append(value)
            values.append(checked)
        which: Any = absent
        if self.names or self.params:
            others = [known[name] for name in self.names]
            others += [param.render(variables) for param in self.params]
            types = [type(each) for each in others]
            if not WRITTEN_TYPES.isdisjoint(types):  # equal numbers that are written in different ways
                return None
            which = (absent, *others, *types)  # equal values of other types are other values to JSON
        return written, values, absent, which


class RequestCache:
    """Checked requests of one template."""

    def __init__(self, template: RequestTemplate) -> None:
        self._template = template
        self._inputs: dict[tuple[str | None, ...], _Inputs | None] = {}
        self._left = _MOST_KEPT

    def find(
        self,
        row: Mapping[str, Any],
        given: Mapping[str, Any],
        known: Mapping[str, Any],
        variables: Mapping[str, Any],
        repeat: int,
    ) -> KnownTask | None:
        """Return the task of a combination, or None if it has to be made the long way.

        `known` holds the values of `row` and `given` together.
        """
        shape = tuple(row) if not given else (*row, None, *given)
        try:
            inputs = self._inputs[shape]
        except KeyError:
            if len(self._inputs) >= _MOST_KEPT:
                return None
            inputs = self._inputs[shape] = self._find_inputs(row, given)
        if inputs is None:
            return None
        try:
            found = inputs.read(known, variables)
        except TemplateError:  # the long way says which of several
            return None
        if found is None:
            return None
        written, values, absent, which = found
        try:
            request = inputs.requests[which]
        except KeyError:
            if self._left <= 0:
                return None
            self._left -= 1
            request = inputs.requests[which] = self._check(inputs, row, given, variables, values, absent)
        except TypeError:  # a list
            return None
        if request is None:
            return None
        key, goods = request.contents(values, repeat)
        key, goods = sha256(key).digest()[:HASH_BYTES], blake2b(goods, digest_size=HASH_BYTES).digest()
        return KnownTask(inputs, request, written, values, key, goods)

    def _find_inputs(self, columns: Iterable[str], axes: Collection[str]) -> _Inputs | None:
        template = self._template
        by_matrix = {name for name in axes if template.matrix_params[name]}
        by_column = [name for name in columns if template.column_params[name] and name not in by_matrix]
        if set(by_column) & set(axes):  # a column, and something of the same name that is no parameter
            return None
        names: list[str] = [name for name in axes if name in by_matrix]
        params, free_names, free = [], [], []
        candidates: list[tuple[str, Param | None]] = [(name, None) for name in by_column]
        candidates += [(param.name, param) for param in template.templated if param.name not in axes]
        owns = [template.model.own_name(name) for name in [*template.constants, *names, *(n for n, _ in candidates)]]
        for name, param in candidates:
            own, check = template.model.own_name(name), template.model.free_check(name)
            if own is not None and check is not None and owns.count(own) == 1 and own not in template.implied:
                free_names.append(name)
                free.append((own, param, check))
            elif param is None:
                names.append(name)
            else:
                params.append(param)
        return _Inputs(tuple(names), tuple(params), tuple(free_names), tuple(free)) if free else None

    def _check(
        self,
        inputs: _Inputs,
        row: Mapping[str, Any],
        given: Mapping[str, Any],
        variables: Mapping[str, Any],
        values: list[Any],
        absent: int,
    ) -> _CheckedRequest | None:
        """Check a request the long way, and return it if it is right and its free values are found in it."""
        template, model = self._template, self._template.model
        params = template.render_params(row, given, variables)
        request, diagnostics = model.request(params)
        present = [at for at in range(len(values)) if not absent >> at & 1]
        owns = {at: inputs.owns[at] for at in present}
        if diagnostics or any(request.get(own) != values[at] for at, own in owns.items()):
            return None
        #: texts that no manifest holds by chance, in the places of the free values
        marks = {at: f"\x02{at}\x03{template.provider}\x02" for at in present}
        marked = {**request, **{owns[at]: mark for at, mark in marks.items()}}
        said = {name: identity.canonical(value) for name, value in request.items() if name not in owns.values()}
        said = {name: value for name, value in said.items() if template.implied.get(name, ...) != value}
        said |= {owns[at]: mark for at, mark in marks.items()}
        provider, code = template.provider, model.code
        try:
            key = identity.key_content(provider, model.operation, code, marked, 0)
            goods = identity.goods_content(provider, template.endpoint, code, said, 0)
        except TypeError:
            return None
        texts = {at: orjson.dumps(mark) for at, mark in marks.items()}
        order = sorted(present, key=lambda at: key.find(texts[at]))
        key_parts, goods_parts = _split(key, [texts[at] for at in order]), _split(goods, [texts[at] for at in order])
        if key_parts is None or goods_parts is None:
            return None
        slots = model.slots(request)
        # an image in a cell has megabytes, and each task brings its own
        request |= dict.fromkeys(owns.values())
        params = params | {inputs.free_names[at]: None for at in present}
        return _CheckedRequest(request, params, slots, tuple(order), key_parts, goods_parts)


def _split(content: bytes, marks: list[bytes]) -> tuple[bytes, ...] | None:
    """Return what stands between marks that stand once each, in this order, without the repeat at the end."""
    parts = []
    for mark in marks:
        if content.count(mark) != 1:
            return None
        before, found, content = content.partition(mark)
        if not found:
            return None
        parts.append(before)
    return (*parts, content.removesuffix(_END)) if content.endswith(_END) else None
