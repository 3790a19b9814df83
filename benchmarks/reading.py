"""A manifest with 100,000 rows under `items`, in YAML: read, validated and planned, against PyYAML's loaders.

Reading is the parse alone, each in a process of its own and less what an import costs; ours also knows line and column
of every value and refuses duplicate keys, tags and alias bombs. CPU, the median of 3 where it is short. `validate` and
`plan` are whole processes: besides reading they check each row, expand the tasks and hash them. The plain SafeLoader is
what PyYAML's first page recommends.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from benchmarks.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench

_ROWS = 100_000
_ROUNDS = 3
_TIMED = """
import sys, time
from pathlib import Path
{imports}
text = Path(sys.argv[1]).read_bytes()
began = time.process_time()
{read}
print(time.process_time() - began)
"""
_OURS = _TIMED.format(imports="from runner.manifest.yaml_reader import read", read="read(text, 'rows.yaml')")
_LOADED = "import yaml", "yaml.load(text, Loader=yaml.{})"
_FAST, _PLAIN = (
    _TIMED.format(imports=_LOADED[0], read=_LOADED[1].format(name)) for name in ("CSafeLoader", "SafeLoader")
)
_HEAD = """\
version: 1
provider: chanjing
model: kling-v2-1
params: {prompt: "{{ product }}, {{ scene }}", aspect_ratio: "1:1", clarity: 1024}
limits: {max_tasks: 1000000}
items:
"""


def measure(bench: Bench) -> Iterator[Figure]:
    """Measure CPU of three loaders and two verbs."""
    rows = bench.size(_ROWS)
    manifest = _written(bench.directory / "rows.yaml", rows)
    ours, fast = ([_cpu(bench, code, manifest) for _ in range(_ROUNDS)] for code in (_OURS, _FAST))
    plain = _cpu(bench, _PLAIN, manifest)
    yield Figure("reading: CPU / CSafeLoader", median(ours) / median(fast), 0.2)
    yield Figure("reading: CPU / SafeLoader", median(ours) / plain)
    yield Figure("reading: CPU a row", 1e6 * median(ours) / rows, unit="µs")
    validated, planned = (bench.run(verb, str(manifest), "--json") for verb in ("validate", "plan"))
    yield Figure("`validate`: CPU / SafeLoader", validated.cpu / plain)
    yield Figure("`validate`: CPU a row", 1e6 * validated.cpu / rows, unit="µs")
    yield Figure("`validate`: peak memory", validated.peak, unit="MB")
    yield Figure("`plan`: CPU / SafeLoader", planned.cpu / plain)
    yield Figure("`plan`: CPU a row", 1e6 * planned.cpu / rows, unit="µs")
    yield Figure("`plan`: peak memory", planned.peak, unit="MB")


def _cpu(bench: Bench, code: str, manifest: Path) -> float:
    return float(bench.python("-c", code, str(manifest)).output)


def _written(path: Path, rows: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.write(_HEAD)
        file.writelines(f"  - product: lamp number {n}\n    scene: 'on slate, {n % 7}'\n" for n in range(rows))
    return path
