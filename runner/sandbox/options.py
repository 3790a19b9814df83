"""What can be set on a sandbox, before it starts or while it runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from runner.sandbox.faults import Faults

Dialect = Literal["A", "B", "C"]
#: A shortest and a longest time, in seconds.
Span = tuple[float, float]
#: What is decided once, when the sandbox starts.
FIXED = frozenset({"host", "port", "ledger", "seed"})
NUMBERS = frozenset(
    {"qps", "window_s", "token_life_s", "list_lag_s", "accept_delay_s", "link_life_s", "slow_s", "late_s", "upload_s"}
)


@dataclass(frozen=True, slots=True)
class Options:
    """Everything a sandbox can be told; the defaults are a provider on a good day."""

    host: str = "127.0.0.1"
    #: 0 takes any free port.
    port: int = 0
    #: An append-only file of accepted tasks; without it a restarted sandbox has forgotten them.
    ledger: Path | None = None
    #: Decides faults and how long each task takes.
    seed: int = 0
    #: Requests allowed in any window, for each endpoint and credential.
    qps: float | None = None
    #: Length of that window; 60 makes `qps` a limit per minute.
    window_s: float = 1.0
    #: Kling tasks that may run at once, for each credential and kind; an image takes n.
    concurrency: int | None = None
    #: How long an image takes.
    seconds: Span = (0.5, 2.0)
    #: How long a video takes; twice as long as an image if not given.
    video_seconds: Span | None = None
    token_life_s: float = 86400.0
    #: A Chanjing token ends after so many requests.
    token_requests: int | None = None
    #: Charges left until every submit is refused for lack of money; an image task counts n.
    credit: int | None = None
    #: How the gateway words its answers: A as Kling, B video object, C minimal.
    gateway_dialect: Dialect = "A"
    #: Whether a second submit with the same external_task_id is refused with 1201.
    external_id_unique: bool = True
    #: Accepted tasks show in lists and look-ups by external id only after this time.
    list_lag_s: float = 0.0
    #: A submit is accepted, and answered, this long after it arrived.
    accept_delay_s: float = 0.0
    #: An uploaded file is pending so long before it is ready.
    upload_s: float = 0.0
    #: Download links die this long after they were handed out; a new query hands out fresh ones.
    link_life_s: float | None = None
    #: Files are padded to about this size.
    file_bytes: int | None = None
    #: Every API request is answered 503 with HTML.
    outage: bool = False
    #: How long slow_reply waits, and slow_download takes.
    slow_s: float = 90.0
    #: When late_accept accepts, counted from the dropped connection.
    late_s: float = 5.0
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        if wrong := [name for name, right in self._checks() if not right]:
            raise ValueError(f"makes no sense: {', '.join(f'{name}={getattr(self, name)!r}' for name in wrong)}")

    def _checks(self) -> Iterator[tuple[str, bool]]:
        yield "gateway_dialect", self.gateway_dialect in ("A", "B", "C")
        yield "qps", self.qps is None or self.qps > 0
        yield "window_s", self.window_s > 0
        for name in ("concurrency", "credit", "token_requests", "file_bytes"):
            yield name, isinstance(getattr(self, name), int | None)
        for name in ("seconds", "video_seconds"):
            low, high = getattr(self, name) or (0, 0)
            yield name, 0 <= low <= high

    def span(self, kind: str) -> Span:
        """Return how long a task of this kind takes, at least and at most."""
        if kind == "image":
            return self.seconds
        low, high = self.seconds
        return self.video_seconds or (2 * low, 2 * high)

    def changed(self, changes: Mapping[str, Any]) -> "Options":
        """Return these options with some of them set anew from JSON values; ValueError names what cannot be."""
        names = {f.name for f in fields(self)} - FIXED
        if unknown := set(changes) - names:
            raise ValueError(f"cannot be changed here: {', '.join(sorted(unknown))}; can: {', '.join(sorted(names))}")
        return replace(self, **{name: _value(name, value) for name, value in changes.items()})

    def to_json(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"ledger": self.ledger and str(self.ledger), "faults": self.faults.to_json()}


def _value(name: str, value: Any) -> Any:
    match name, value:
        case "faults", _:
            return Faults(value)
        case (("seconds" | "video_seconds"), [low, high]):
            return float(low), float(high)
        case _ if name in NUMBERS and value is not None:
            return float(value)
        case _:
            return value
