"""Options of a sandbox, set before it starts or while it runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from runner.sandbox.faults import Faults

Dialect = Literal["A", "B", "C"]
#: Forms of task ids: those of each provider; numbers in JSON; 200 characters; with a slash, a blank or non-ASCII
#: characters; made of look-alikes; and pairs that are equal up to case.
IdForm = Literal["own", "number", "long", "slash", "blank", "unicode", "alike", "case"]
ID_FORMS: tuple[IdForm, ...] = ("own", "number", "long", "slash", "blank", "unicode", "alike", "case")
#: A shortest and a longest duration, in seconds.
SecondsRange = tuple[float, float]
#: Options that cannot change after the start.
FIXED_OPTIONS = frozenset({"host", "port", "ledger", "seed"})
#: Options that take a number from JSON as a float.
FLOAT_OPTIONS = frozenset(
    {
        "qps",
        "window_s",
        "token_life_s",
        "list_lag_s",
        "list_lag_grows_s",
        "list_time_shift_s",
        "reference_lag_s",
        "accept_delay_s",
        "link_life_s",
        "slow_s",
        "late_s",
        "upload_s",
    }
)


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a sandbox. The defaults make providers without faults. Invalid values raise ValueError."""

    host: str = "127.0.0.1"
    #: Port to listen on. 0 takes any free port.
    port: int = 0
    #: Append-only file of accepted tasks. Without it a restarted sandbox has forgotten them.
    ledger: Path | None = None
    #: Seed of the faults and of each task's duration.
    seed: int = 0
    #: Requests allowed in any window, for each endpoint and credential.
    qps: float | None = None
    #: Length of that window, in seconds. 60 makes `qps` a limit per minute.
    window_s: float = 1.0
    #: Kling tasks that may run at once, for each credential and kind. An image task occupies n slots.
    concurrency: int | None = None
    #: Duration of an image task.
    seconds: SecondsRange = (0.5, 2.0)
    #: Duration of a video task. None: twice that of an image task.
    video_seconds: SecondsRange | None = None
    #: Lifetime of a Chanjing token.
    token_life_s: float = 86400.0
    #: Requests after which a Chanjing token expires.
    token_requests: int | None = None
    #: Charges until every submit is refused for lack of money. An image task counts n.
    credit: int | None = None
    #: Form of the gateway's responses: A as Kling, B video object, C minimal.
    gateway_dialect: Dialect = "A"
    #: True: a second submit with the same external_task_id is refused with 1201.
    external_id_unique: bool = True
    #: True: a second submit with the same external_task_id is answered with the first task, and costs nothing.
    external_id_first: bool = False
    #: Form of the ids of tasks.
    id_form: IdForm = "own"
    #: Delay after which an accepted task shows in lists and in queries by external id.
    list_lag_s: float = 0.0
    #: Seconds by which that delay is longer for each task than for the one before.
    list_lag_grows_s: float = 0.0
    #: Seconds by which the times in lists are ahead: another zone, or the future.
    list_time_shift_s: float = 0.0
    #: Age at which an accepted task shows its external_task_id, and is found by it.
    reference_lag_s: float = 0.0
    #: Rows that a list shows at most: the newest tasks, or the oldest.
    list_newest: int | None = None
    list_oldest: int | None = None
    #: Rows on a page at most, whatever the client asks for.
    list_page: int | None = None
    #: Delay between a submit and its acceptance and response.
    accept_delay_s: float = 0.0
    #: Time for which an uploaded file is pending.
    upload_s: float = 0.0
    #: Lifetime of a download link. A new query returns fresh links.
    link_life_s: float | None = None
    #: Approximate size in bytes to which files are padded.
    file_bytes: int | None = None
    #: True: every API request gets a 503 response in HTML.
    outage: bool = False
    #: Delay of slow_reply, and duration of slow_download.
    slow_s: float = 90.0
    #: Delay of late_accept between the closed connection and the acceptance.
    late_s: float = 5.0
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        if invalid := [name for name, valid in self._checks() if not valid]:
            raise ValueError(f"makes no sense: {', '.join(f'{name}={getattr(self, name)!r}' for name in invalid)}")

    def _checks(self) -> Iterator[tuple[str, bool]]:
        yield "gateway_dialect", self.gateway_dialect in ("A", "B", "C")
        yield "qps", self.qps is None or self.qps > 0
        yield "id_form", self.id_form in ID_FORMS
        yield "window_s", self.window_s > 0
        yield "list_page", self.list_page is None or self.list_page > 0
        yield "list_lag_grows_s", self.list_lag_grows_s >= 0
        for name in (
            "concurrency",
            "credit",
            "token_requests",
            "file_bytes",
            "list_newest",
            "list_oldest",
            "list_page",
        ):
            yield name, isinstance(getattr(self, name), int | None)
        for name in ("seconds", "video_seconds"):
            low, high = getattr(self, name) or (0, 0)
            yield name, 0 <= low <= high

    def duration_range(self, kind: str) -> SecondsRange:
        """Return the shortest and the longest duration of a task of this kind."""
        if kind == "image":
            return self.seconds
        low, high = self.seconds
        return self.video_seconds or (2 * low, 2 * high)

    def with_changes(self, changes: Mapping[str, Any]) -> "Options":
        """Return a copy with some options changed to JSON values. Raise ValueError for those that cannot change."""
        names = {f.name for f in fields(self)} - FIXED_OPTIONS
        if unknown := set(changes) - names:
            raise ValueError(f"cannot be changed here: {', '.join(sorted(unknown))}; can: {', '.join(sorted(names))}")
        return replace(self, **{name: _convert_value(name, value) for name, value in changes.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the options as JSON values, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"ledger": self.ledger and str(self.ledger), "faults": self.faults.to_dict()}


def _convert_value(name: str, value: Any) -> Any:
    match name, value:
        case "faults", _:
            return Faults(value)
        case (("seconds" | "video_seconds"), [low, high]):
            return float(low), float(high)
        case _ if name in FLOAT_OPTIONS and value is not None:
            return float(value)
        case _:
            return value
