"""Define plain values that know their position in a file: a line and a column, both from 1."""

from __future__ import annotations

from array import array
from typing import Any

#: keys and indices from the root of a file to a value
KeyPath = tuple[str | int, ...]

#: bits of a packed position that hold the column; the line is above them
COLUMN_BITS = 24
_COLUMN_MASK = (1 << COLUMN_BITS) - 1


def pack_position(line: int, column: int) -> int:
    """Return a line and a column in one number; a column beyond its bits is the last that fits."""
    return line << COLUMN_BITS | min(column, _COLUMN_MASK)


def unpack_position(at: int) -> tuple[int, int]:
    """Return (line, column) of a packed position."""
    return at >> COLUMN_BITS, at & _COLUMN_MASK


class YamlMapping(dict[str, Any]):
    """Mapping of a file. `positions` alternates the packed positions of its keys and of their values."""

    __slots__ = ("position", "positions")

    def __init__(self, at: int) -> None:
        super().__init__()
        self.position = at
        self.positions = array("Q")

    def key_position(self, key: str) -> int:
        """Return the packed position of a key."""
        return self.positions[2 * list(self).index(key)]

    def value_position(self, key: str) -> int:
        """Return the packed position of the value of a key."""
        return self.positions[2 * list(self).index(key) + 1]


class YamlSequence(list[Any]):
    """List of a file. `positions` holds the packed positions of its values."""

    __slots__ = ("position", "positions")

    def __init__(self, at: int) -> None:
        super().__init__()
        self.position = at
        self.positions = array("Q")


class SourceMap:
    """Map from paths, beginning at the root, to the locations of keys and values."""

    def __init__(self, root: Any) -> None:
        self._root = root

    def location(self, *path: str | int) -> tuple[int, int]:
        """Return (line, column) of the value at `path`, or of its nearest ancestor if it does not exist."""
        _, at = self._descend(path)
        return unpack_position(at)

    def key_location(self, *path: str | int) -> tuple[int, int]:
        """Return (line, column) of the last key of `path`, or of the value if it is an index of a list."""
        parent, _ = self._descend(path[:-1])
        key = path[-1]
        if isinstance(parent, YamlMapping) and isinstance(key, str) and key in parent:
            return unpack_position(parent.key_position(key))
        return self.location(*path)

    def _descend(self, path: KeyPath) -> tuple[Any, int]:
        node, at = self._root, getattr(self._root, "position", (1 << COLUMN_BITS) + 1)
        for step in path:
            if isinstance(node, YamlMapping) and isinstance(step, str) and step in node:
                node, at = node[step], node.value_position(step)
            elif isinstance(node, YamlSequence) and isinstance(step, int) and step < len(node):
                node, at = node[step], node.positions[step]
            else:
                break
        return node, at


def value_text(value: Any) -> str:
    """Return a value as the text of a data file, so that the number 5 and the text `5` are equal; None is empty."""
    if type(value) is str:
        return value
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case list():
            return ", ".join(value_text(each) for each in value)
        case dict():
            return ", ".join(f"{name}: {value_text(each)}" for name, each in value.items())
        case _:
            return str(value)


def dotted_path(path: KeyPath) -> str:
    """Return a path as text, like `items[3].subject`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
