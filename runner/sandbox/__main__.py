"""Command line of the sandbox: start it and print its address and environment."""

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runner.sandbox.faults import KINDS, Faults
from runner.sandbox.options import ID_FORMS, Options, SecondsRange
from runner.sandbox.state import FAILING, FORBIDDEN

CANNOT_START = 7
FAULT_HELP = "0.05 is a share of the requests, @3,7 means the 3rd and the 7th; repeatable"


def main(argv: list[str] | None = None) -> int:
    """Run a sandbox until SIGTERM or SIGINT arrives, and return the exit code.

    With `--until-stdin-closes` it also stops when standard input closes.
    """
    parser = _build_parser()
    arguments = parser.parse_args(argv)
    if not all(map(find_spec, ("h11", "PIL", "av"))):
        sys.stderr.write("the sandbox needs: pip install 'genrunner[sandbox]'\n")
        return CANNOT_START
    try:
        options = _build_options(arguments)
    except ValueError as error:
        parser.error(str(error))
    return asyncio.run(_serve(options, arguments))


def _build_options(arguments: argparse.Namespace) -> Options:
    values = vars(arguments).copy()
    for name in ("json", "until_stdin_closes"):
        del values[name]
    return Options(**values | {"faults": Faults.parse(arguments.faults)})


async def _serve(options: Options, arguments: argparse.Namespace) -> int:
    from runner.sandbox.server import Sandbox  # noqa: PLC0415  h11 may be missing, and main() has to explain it

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Sandbox(options) as sandbox:
            _announce(sandbox.url, sandbox.env, as_json=arguments.json)
            if arguments.until_stdin_closes:
                _watch_stdin(lambda: loop.call_soon_threadsafe(stop.set))
            await stop.wait()
    except OSError as error:
        sys.stderr.write(f"the sandbox cannot start: {error}\n")
        return CANNOT_START
    return 0


def _announce(url: str, env: dict[str, str], *, as_json: bool) -> None:
    """Print the URL and the environment, as one line of JSON or as lines for a shell."""
    if as_json:
        text = json.dumps({"url": url, "env": env})
    else:
        text = "\n".join([f"# sandbox: {url}", *(f"export {name}={value}" for name, value in env.items())])
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _watch_stdin(on_close: Callable[[], object]) -> None:
    """Call `on_close` from a thread when standard input ends."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        on_close()

    threading.Thread(target=watch, daemon=True).start()


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runner sandbox",
        description="Serve Chanjing, Kling and a Kling gateway on loopback, with faults and a ledger; nothing is paid.",
        epilog=f"Faults: {', '.join(sorted(KINDS))}. Words in a prompt: {' or '.join(FORBIDDEN)} is refused by the "
        f"content check, {FAILING} is accepted and fails later.",
        argument_default=argparse.SUPPRESS,
    )
    for names, settings in _arguments():
        parser.add_argument(*names, **settings)
    return parser


def _arguments() -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    boolean = argparse.BooleanOptionalAction
    stdin = ("--until-stdin-closes", "--parent-pid-watch")
    return [
        (("--host",), {"help": "address to listen on (127.0.0.1)"}),
        (("--port",), {"type": int, "help": "port; 0 takes any free one (0)"}),
        (("--ledger",), {"type": Path, "metavar": "FILE", "help": "append accepted tasks here; read at start"}),
        (("--seed",), {"type": int, "help": "decides faults and times (0)"}),
        (("--qps",), {"type": float, "help": "requests in any window, for each endpoint and credential"}),
        (("--window-s",), {"type": float, "help": "length of that window; 60 for limits per minute (1)"}),
        (("--concurrency",), {"type": int, "help": "Kling tasks at once; an image takes n places"}),
        (
            ("--seconds",),
            {"type": _parse_seconds_range, "metavar": "MIN,MAX", "help": "how long an image takes (0.5,2)"},
        ),
        (
            ("--video-seconds",),
            {"type": _parse_seconds_range, "metavar": "MIN,MAX", "help": "how long a video takes (1,4)"},
        ),
        (("--token-life-s",), {"type": float, "help": "life of a Chanjing token (86400)"}),
        (("--token-requests",), {"type": int, "help": "a Chanjing token ends after so many requests"}),
        (("--credit",), {"type": int, "help": "charges until there is no money left; an image task counts n"}),
        (("--gateway-dialect",), {"choices": ["A", "B", "C"], "help": "A as Kling, B video object, C minimal (A)"}),
        (("--external-id-unique",), {"action": boolean, "help": "refuse an external_task_id used before (yes)"}),
        (("--external-id-first",), {"action": boolean, "help": "answer such a submit with the first task (no)"}),
        (("--id-form",), {"choices": ID_FORMS, "help": "form of the ids of tasks (own)"}),
        (("--list-lag-s",), {"type": float, "help": "accepted tasks show in lists only after this (0)"}),
        (("--list-lag-grows-s",), {"type": float, "help": "and each task so much later than the one before (0)"}),
        (("--list-time-shift-s",), {"type": float, "help": "times in lists are so far ahead, or behind (0)"}),
        (("--reference-lag-s",), {"type": float, "help": "tasks show their external_task_id only after this (0)"}),
        (("--list-newest",), {"type": int, "help": "lists show only so many tasks, the newest"}),
        (("--list-oldest",), {"type": int, "help": "lists show only so many tasks, the oldest"}),
        (("--list-page",), {"type": int, "help": "pages show only so many rows"}),
        (("--accept-delay-s",), {"type": float, "help": "a submit waits so long before it is accepted (0)"}),
        (("--upload-s",), {"type": float, "help": "an uploaded file is pending so long (0)"}),
        (("--link-life-s",), {"type": float, "help": "download links die after this"}),
        (("--file-bytes",), {"type": int, "help": "pad files to about this size"}),
        (("--outage",), {"action": boolean, "help": "answer every API request with 503 (no)"}),
        (("--slow-s",), {"type": float, "help": "wait of slow_reply, length of slow_download (90)"}),
        (("--late-s",), {"type": float, "help": "late_accept accepts so long after the cut (5)"}),
        (
            ("--fault",),
            {"action": "append", "dest": "faults", "default": [], "metavar": "KIND=SHARE", "help": FAULT_HELP},
        ),
        (("--json",), {"action": "store_true", "default": False, "help": "print url and environment as JSON"}),
        (stdin, {"action": "store_true", "default": False, "help": "stop when standard input closes"}),
    ]


def _parse_seconds_range(text: str) -> SecondsRange:
    low, _, high = text.partition(",")
    return float(low), float(high or low)


if __name__ == "__main__":
    sys.exit(main())
