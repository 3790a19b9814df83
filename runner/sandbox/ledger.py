"""The ledger of accepted, and therefore charged, tasks, in memory and in an append-only file that survives `kill -9`.

A line is written with one `write` before the response leaves, so every charge that a client may see is on record.
"""

import json
import os
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

Kind = Literal["image", "video"]
#: Longest text recorded in full, in characters. Longer ones, such as images in Base64, are recorded by their hash.
MAX_TEXT_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class AcceptedTask:
    """A task that the provider has accepted. It is one line of the ledger file, by field name."""

    #: Position in the order of acceptance, from 1.
    number: int
    id: str
    provider: str
    account: str
    operation: str
    kind: Kind
    external_id: str | None
    request: dict[str, Any]
    charge: int
    #: Time of acceptance (Unix time, seconds).
    at: float
    #: Digest of the request without its external id: equal for equal requests.
    key: str
    #: SHA-256 of each image of the request, by its position (`field`, or `field/2` in a list). The name is stored.
    pictures: dict[str, str] = field(default_factory=dict)
    #: Somebody else has submitted it.
    foreign: bool = False

    @property
    def prompt(self) -> str:
        """Return the prompt of the request, or `""`."""
        return str(self.request.get("ref_prompt") or self.request.get("prompt") or "")

    @property
    def model(self) -> str:
        """Return the model of the request, or `""`."""
        names = ("model_code", "model_name", "model")
        return str(next((self.request[name] for name in names if self.request.get(name)), ""))


@dataclass(frozen=True, slots=True)
class Order:
    """A submit that passed every check and can be accepted."""

    id: str
    provider: str
    account: str
    operation: str
    kind: Kind
    external_id: str | None
    request: dict[str, Any]
    charge: int
    #: Builder of the provider's response to the accepted submit.
    to_response: Callable[[AcceptedTask], Any]
    pictures: dict[str, str] = field(default_factory=dict)
    foreign: bool = False


class Ledger:
    """The accepted tasks, with the indexes that queries need."""

    def __init__(self, path: Path | None = None) -> None:
        self.accepted: list[AcceptedTask] = []
        self._by_id: dict[str, AcceptedTask] = {}
        self._by_external: defaultdict[str, list[AcceptedTask]] = defaultdict(list)
        self._lists: defaultdict[tuple[str, str, str], list[AcceptedTask]] = defaultdict(list)
        self._request_counts: Counter[str] = Counter()
        self._charges = 0
        self._file = None if path is None else self._open(path)

    def accept(self, order: Order, at: float) -> AcceptedTask:
        """Record an order as accepted at this time (Unix time, seconds), and return the task."""
        request = {name: _shorten(value) for name, value in order.request.items()}
        values = {f.name: getattr(order, f.name) for f in fields(order) if f.name not in {"to_response", "request"}}
        key = _request_key(order, request)
        accepted = AcceptedTask(**values, number=len(self.accepted) + 1, request=request, at=at, key=key)
        if self._file is not None:
            os.write(self._file, json.dumps(asdict(accepted)).encode() + b"\n")
        self._index(accepted)
        return accepted

    def charges(self) -> int:
        """Return the sum of all charges: 1 for a video, n for n images."""
        return self._charges

    def duplicates(self) -> int:
        """Return the number of accepted requests that equal an earlier one in everything but the external id.

        Tasks of somebody else do not count.
        """
        return self._request_counts.total() - len(self._request_counts)

    def by_id(self, task_id: str) -> AcceptedTask | None:
        """Return the task with this id, or None."""
        return self._by_id.get(task_id)

    def by_external_id(self, external_id: str) -> list[AcceptedTask]:
        """Return the tasks of all accounts with this external id, oldest first."""
        return self._by_external.get(external_id, [])

    def by_request(self) -> dict[str, list[AcceptedTask]]:
        """Return the client's accepted tasks by the key of their request. Several under one are a repeated purchase."""
        groups: defaultdict[str, list[AcceptedTask]] = defaultdict(list)
        for accepted in self.accepted:
            if not accepted.foreign:
                groups[accepted.key].append(accepted)
        return dict(groups)

    def visible_tasks(
        self, provider: str, account: str, operation: str, until: float
    ) -> tuple[Sequence[AcceptedTask], int]:
        """Return all tasks of an account and operation, oldest first, and how many of them were accepted by `until`."""
        tasks = self._lists.get((provider, account, operation), [])
        return tasks, bisect_right(tasks, until, key=attrgetter("at"))

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _index(self, accepted: AcceptedTask) -> None:
        self.accepted.append(accepted)
        self._by_id[accepted.id] = accepted
        if accepted.external_id is not None:
            self._by_external[accepted.external_id].append(accepted)
        self._lists[accepted.provider, accepted.account, accepted.operation].append(accepted)
        if not accepted.foreign:
            self._request_counts[accepted.key] += 1
        self._charges += accepted.charge

    def _open(self, path: Path) -> int:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        os.ftruncate(file, whole)  # the client never got the response of a line that a crash cut short
        for line in text[:whole].splitlines():
            self._index(AcceptedTask(**json.loads(line)))
        return file


def _shorten(value: Any) -> Any:
    if isinstance(value, list):
        return [_shorten(part) for part in value]
    if isinstance(value, str) and len(value) > MAX_TEXT_LENGTH:
        digest = sha256(value.encode(errors="backslashreplace")).hexdigest()
        return f"{value[:64]}... ({len(value)} characters, sha256 {digest})"
    return value


def _replace_images_by_hashes(request: dict[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return the request with each image replaced by its hash, because an image has many possible URLs."""
    replaced = {name: list(value) if isinstance(value, list) else value for name, value in request.items()}
    for position, digest in hashes.items():
        name, _, number = position.partition("/")
        if number:
            replaced[name][int(number)] = digest
        else:
            replaced[name] = digest
    return replaced


def _request_key(order: Order, request: dict[str, Any]) -> str:
    content = {
        name: value
        for name, value in _replace_images_by_hashes(request, order.pictures).items()
        if name != "external_task_id"
    }
    text = json.dumps([order.provider, order.operation, content], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]
