"""Bulk generation against asynchronous image and video APIs: every task paid for once, every result kept.

The names of `__all__` are the public interface. Each is loaded when it is used first, so importing this package is
cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.api import (
        Job,
        ManifestError,
        Plan,
        Progress,
        RunnerError,
        RunResult,
        TaskChanged,
        TaskResult,
        Warned,
        arun,
        load,
        open_job,
        plan,
        resolve,
        run,
    )

__version__ = "0.1.0"

__all__ = [
    "Job",
    "ManifestError",
    "Plan",
    "Progress",
    "RunResult",
    "RunnerError",
    "TaskChanged",
    "TaskResult",
    "Warned",
    "__version__",
    "arun",
    "load",
    "open_job",
    "plan",
    "resolve",
    "run",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is used first (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("runner.api"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
