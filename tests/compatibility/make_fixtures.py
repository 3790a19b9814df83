"""Make the workspaces in `fixtures/`: job directories of every provider with tasks in every state, from runner 0.1.

    git worktree add /somewhere ccf2609        # the last commit before the package was taken apart; install it there
    /somewhere/.venv/bin/python tests/compatibility/make_fixtures.py /somewhere

The old version itself makes them: real runs against its sandbox, whose faults, slow tasks and kills (`RUNNER_CRASH_AT`)
leave a task in each state. Then it takes a copy to its end, and what it says on the way (status, export, run, retry,
verify, audit, resolve, recover) is stored beside the archive. Takes five minutes; `--record` only does the second part.

In each workspace are `images.yaml`, with every state, `films.yaml`, whose tasks have local images and whose journal
is ahead of its database, and RUNNER_HOME. `sandbox.tar.xz` holds a job of `run --sandbox`.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.compatibility.procedure import (
    FIXTURES,
    PROVIDERS,
    SANDBOX,
    Workspace,
    normalise,
    pack,
    prompt_of,
    recover,
    take_to_end,
    unpack,
)

IMAGES = {"chanjing": "kling-v2-1", "kling": "image/kling-v2-1", "kling-gateway": "image/kling-v1-5"}
FILMS = {"chanjing": "tx_kling2.5", "kling": "image2video/kling-v2-6", "kling-gateway": "image2video/kling-v2-6"}
#: seconds that a task takes in the sandbox where it shall not end
NEVER = 1e6
#: the same for a while: what was accepted longer ago has ended
LONG = 15.0
#: the files' host takes no more requests: what is ready stays so
BUSY = {"http_429_download": 1.0}


class Maker:
    """Builds the workspace of one provider, phase by phase."""

    def __init__(self, provider: str, space: Workspace) -> None:
        self.provider, self.space, self.prompts = provider, space, []

    def manifest(self, *prompts: str, doubt: str = "1s", patience: str = "2d", drop: tuple[str, ...] = ()) -> None:
        """Append rows to the job."""
        self.prompts = [each for each in [*self.prompts, *prompts] if each not in drop]
        rows = "".join(f"  - {{prompt: {each}}}\n" for each in self.prompts)
        n = "number_of_images" if self.provider == "chanjing" else "n"
        self._write("images", IMAGES[self.provider], f'{{aspect_ratio: "1:1", {n}: 2}}', rows, doubt, patience)

    def films(self, *rows: tuple[str, str]) -> None:
        """Write the job whose tasks have local images."""
        duration = "5" if self.provider == "chanjing" else '"5"'
        text = "".join(f"  - {{prompt: {prompt}, image: photos/{image}.png}}\n" for prompt, image in rows)
        self._write("films", FILMS[self.provider], f"{{duration: {duration}}}", text, "1s", "2d")

    def _write(self, name: str, model: str, params: str, rows: str, doubt: str, patience: str) -> None:
        cost = "cost: 8\n" if (self.provider, name) == ("chanjing", "images") else "cost: 4\n"
        (self.space.root / f"{name}.yaml").write_text(
            f"version: 1\nprovider: {self.provider}\nmodel: {model}\nparams: {params}\n{cost}items:\n{rows}"
            f"limits: {{qps: 20}}\nretry: {{doubt: {doubt}, patience: {patience}}}\n",
            encoding="utf-8",
        )

    # the job of many states

    def held(self, url: str) -> None:
        """Leave four tasks held: accepted, with the answer lost and no list that shows them; decide about three."""
        self.space.change(url, faults={"lost_reply": 1.0}, list_lag_s=NEVER)
        self.manifest("held and adopted", "held and abandoned", "held for good", "held until the test")
        self.run_until(lambda counts: set(counts) == {"held"})
        self.space.change(url, faults={"reset_before": 1.0})
        self.manifest("held and never accepted")
        self.run_until(lambda counts: counts == {"held": 5})
        self.space.change(url, faults={}, list_lag_s=0, seconds=[0, 0])
        rows = {row["vars"]["prompt"]: row["key"] for row in self.space.lines("export", "images.yaml")}
        ids = {prompt_of(task): task["id"] for task in self.space.accepted()}
        adopted = ids["held and adopted"]
        self.space.ask("resolve", "images.yaml", rows["held and adopted"], "--adopt", adopted)
        self.space.ask("resolve", "images.yaml", rows["held and abandoned"], "--abandon")
        self.space.ask("resolve", "images.yaml", rows["held and never accepted"], "--absent")
        self.run_until(lambda counts: not {"queued", "running", "ready"} & set(counts))

    def stranded(self, url: str) -> None:
        """Leave a task stranded: its links lead to web pages, and patience is short."""
        self.space.change(url, faults={"html_download": 1.0}, seconds=[0, 0])
        self.manifest("stranded", patience="1s")
        self.run_until(lambda counts: counts.get("stranded"))
        self.space.change(url, faults={})

    def settled(self, url: str) -> None:
        """Leave tasks done, failed, failed after a second purchase (with a former id), and refused."""
        self.space.change(url, faults={}, seconds=[0, 0])
        self.manifest("done", "竹编灯笼", "FAIL-TEST", "NSFW-TEST")
        self.run_until(lambda counts: not {"queued", "running", "ready"} & set(counts))
        self.space.run("retry", "images.yaml", "--failed", "--reason", "provider", "--yes")

    def gone(self, url: str) -> None:
        """Leave a task that was never bought and has left the manifest."""
        self.space.change(url, faults={}, seconds=[0, 0])
        self.manifest("left the manifest")
        self.space.run("run", "images.yaml", "--max-cost", "0")
        self.manifest(drop=("left the manifest",))

    def ready(self, url: str) -> None:
        """Leave tasks ready: the files' host says that there are too many requests; then kill -9."""
        self.space.change(url, faults=BUSY, seconds=[0, 0])
        self.manifest("ready one", "ready two")
        with self.space.start("run", "images.yaml") as process:
            self.wait(lambda counts: counts.get("ready") == 2)
            process.kill()
        time.sleep(LONG)

    def open(self, url: str) -> None:
        """Leave tasks running, in doubt, queued and sent: nothing ends, answers are lost, then kill -9."""
        faults = {"lost_reply": [2], "reset_before": [4], **BUSY}
        self.space.change(url, faults=faults, seconds=[LONG, LONG], list_lag_s=NEVER)
        rows = [f"open {number}" for number in range(10)]
        self.manifest(*rows, doubt="10m")
        point = {"RUNNER_CRASH_AT": "answer received:6"}
        code, _, err = self.space.run("run", "images.yaml", env=point)
        assert code == -9, f"{code}: {err}"
        self.manifest("added after the last run")

    # everything else

    def photographed(self, url: str) -> None:
        """Leave a job with local images killed when an id is in the journal and not in the database."""
        self.space.change(url, faults={}, seconds=[0, 0], video_seconds=[0, 0], list_lag_s=0)
        (self.space.root / "photos").mkdir()
        for number, name in enumerate(("boat", "ship")):
            file = io.BytesIO()
            Image.new("L", (320, 320), 100 * number).save(file, "PNG")
            (self.space.root / "photos" / f"{name}.png").write_bytes(file.getvalue())
        self.films(("done", "boat"))
        self.space.run("run", "films.yaml")
        self.films(("done", "boat"), ("first", "boat"), ("second", "ship"), ("third", "ship"))
        self.space.change(url, video_seconds=[NEVER, NEVER])
        code, _, err = self.space.run("run", "films.yaml", env={"RUNNER_CRASH_AT": "id journaled:2"})
        assert code == -9, f"{code}: {err}"

    def counts(self) -> dict[str, int]:
        code, out, _ = self.space.run("status", "images.yaml", "--json")
        return json.loads(out)["counts"] if code == 0 else {}

    def run_until(self, holds: Any) -> None:
        """Run the job again until its counts are right; doubts that nobody can look up end a run early."""
        for _ in range(8):
            _, _, err = self.space.run("run", "images.yaml")
            if holds(self.counts()):
                return
        raise AssertionError(f"{self.provider}: {self.counts()}: {err}")

    def wait(self, holds: Any) -> None:
        end = time.monotonic() + 60
        while not holds(self.counts()):
            assert time.monotonic() < end, self.counts()
            time.sleep(0.2)

    def make(self) -> None:
        """Build the workspace."""
        self.space.env = {}
        with self.space.sandbox() as url:
            for name in ("CHANJING", "KLING", "KLING_GATEWAY"):
                self.space.env[f"{name}_DAILY_COST"] = "100000"
            for phase in (self.held, self.stranded, self.settled, self.gone, self.ready, self.photographed, self.open):
                phase(url)
                print(self.provider, phase.__name__, self.counts(), flush=True)


def make(name: str, code: Path, root: Path) -> None:
    """Make one workspace and store it."""
    root.mkdir()
    space = Workspace(root, code)
    if name == SANDBOX:
        make_in_sandbox(space)
    else:
        Maker(name, space).make()
    pack(root, FIXTURES / f"{name}.tar.xz")


def make_in_sandbox(space: Workspace) -> None:
    """Make a job of `run --sandbox` without prices, killed with an intent in the journal alone."""
    rows = "".join(f"  - {{prompt: row {number}}}\n" for number in range(4))
    (space.root / "pretend.yaml").write_text(
        f"version: 1\nprovider: kling\nmodel: image/kling-v2-1\nitems:\n{rows}"
        f"limits: {{qps: 20}}\nretry: {{doubt: 1s}}\n"
    )
    code, _, err = space.run("run", "pretend.yaml", "--sandbox", env={"RUNNER_CRASH_AT": "intent journaled:3"})
    assert code == -9, f"{code}: {err}"


def record(name: str, code: Path, base: Path) -> None:
    """Store what the old version says while it takes a stored workspace to its end, and while it recovers it."""
    expected = {}
    for kind in ("resumed", "recovered"):
        root = base / f"{name}-{kind}"
        unpack(FIXTURES / f"{name}.tar.xz", root)
        space = Workspace(root, code)
        known = {task["id"] for task in space.accepted()}
        if kind == "resumed":
            said = take_to_end(name, space)
        elif name != SANDBOX:
            said = recover(space, "images.yaml")
        else:
            continue
        expected[kind] = normalise(said, root, known)
    text = json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True)
    (FIXTURES / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Make and record the workspaces that are named, or all; with `--record` only record."""
    code, only_record = Path(sys.argv[1]).resolve(), "--record" in sys.argv
    names = [word for word in sys.argv[2:] if word != "--record"] or [*PROVIDERS, SANDBOX]
    base = Path(tempfile.mkdtemp(prefix="runner-fixtures-"))

    def both(name: str) -> None:
        if not only_record:
            make(name, code, base / name)
            shutil.rmtree(base / name)  # a copy beside its original is not gone on with
        record(name, code, base)

    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(both, names))
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
