import os
import re
import stat

from runner.lifecycle.task import State
from runner.report import metrics
from runner.report.metrics import Sample

#: a line of Prometheus' text format
LINE = re.compile(r'(\w+)\{(\w+="(?:[^"\\\n]|\\["\\n])*"(?:,\w+="(?:[^"\\\n]|\\["\\n])*")*)\} (-?[\d.e+]+)')


def read(text: str) -> dict[str, float]:
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            name, labels, value = LINE.fullmatch(line).groups()
            found[f"{name} {labels}"] = float(value)
    return found


def test_every_state_and_unsettled_sum_are_present():
    """Tasks that may have been paid for are summed."""
    values = read(
        metrics.text(Sample("j", 1.5e9, running=True, counts={"done": 3, "in_doubt": 2, "held": 1}, cost=4.5))
    )
    assert {key.partition('state="')[2][:-1] for key in values if "runner_tasks" in key} == set(State)
    assert values['runner_tasks job="j",state="done"'] == 3
    assert values['runner_unsettled_tasks job="j"'] == 3
    assert values['runner_cost job="j"'] == 4.5
    assert values['runner_running job="j"'] == 1
    assert values['runner_last_run_timestamp_seconds job="j"'] == 1.5e9


def test_unknown_values_are_left_out():
    """Every metric that is present has one HELP and one TYPE line."""
    text = metrics.text(Sample("j", 0.0, running=False, counts={}, exit_code=4))
    assert not {"runner_cost", "runner_run_submitted_tasks"} & set(re.findall(r"\w+", text))
    assert "runner_exit_code" in text
    names = re.findall(r"# TYPE (\w+) gauge", text)
    assert len(names) == len(set(names)) == len(re.findall("# HELP", text))


def test_job_name_is_escaped_in_labels():
    name = 'a"} 1\nrunner_exit_code{job="b\\'
    values = read(metrics.text(Sample(name, 0.0, running=False, counts={})))
    assert len(values) == len(State) + 4
    assert all(key.split(" ", 1)[1].startswith('job="a\\"} 1\\nrunner_exit_code{job=\\"b\\\\"') for key in values)


def test_file_is_world_readable_and_atomic(tmp_path):
    path = tmp_path / "runner.prom"
    before = os.umask(0o077)
    try:
        metrics.write(path, Sample("j", 0.0, running=True, counts={}))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    first = path.stat().st_ino
    metrics.write(path, Sample("j", 1.0, running=False, counts={}, exit_code=0))
    assert path.stat().st_ino != first
    assert [entry.name for entry in tmp_path.iterdir()] == ["runner.prom"]
