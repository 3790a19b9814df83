"""Run the runner without the bound on what is paid and not on the disk: `python -m benchmarks.unbounded WORDS…`."""

import math
import sys

from runner.scheduler import download_backlog

if __name__ == "__main__":
    download_backlog.FACTOR = math.inf
    from runner.cli.main import run

    sys.exit(run(sys.argv[1:]))
