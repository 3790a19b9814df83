"""Start a process, wait for its end, and print exit code, wall time, CPU time (seconds) and peak memory (MB).

The peak of a child is never below that of its parent, so this interpreter imports almost nothing. Called as
`python -I -S launch.py STDOUT STDERR LIMIT COMMAND…`; after LIMIT seconds the command gets SIGTERM.
"""

import os
import signal
import sys
import time

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
#: macOS counts in bytes, Linux in KiB
_TO_MB = 2**20 if sys.platform == "darwin" else 2**10


def main(out: str, err: str, limit: str, *command: str) -> None:
    """Print one line of figures."""
    files = [(os.POSIX_SPAWN_OPEN, number, path, _WRITE, 0o600) for number, path in ((1, out), (2, err))]
    began = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=files)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(process, signal.SIGTERM))
    signal.alarm(int(limit))
    _, status, spent = os.wait4(process, 0)
    seconds = time.perf_counter() - began
    print(os.waitstatus_to_exitcode(status), seconds, spent.ru_utime + spent.ru_stime, spent.ru_maxrss / _TO_MB)


if __name__ == "__main__":
    main(*sys.argv[1:])
