import json
import shlex

import pytest

from runner.report import summary as report
from runner.report.stats import RunStats
from runner.report.summary import JobIssues, issue_lines, render, summary

WORDS = ["my posters.yaml", "--sandbox"]
RETRY = "runner retry 'my posters.yaml' --sandbox"
RUN = "runner run 'my posters.yaml' --sandbox"


def group(
    state: str, reason: str, count: int = 1, message: str = "", *, paid=0, cost=0.0, unpriced=0, tasks=()
) -> dict:
    names = ("state", "reason", "count", "message", "paid", "cost", "unpriced", "tasks")
    return dict(zip(names, (state, reason, count, message, paid, cost, unpriced, tasks), strict=True))


def held(number: int = 1) -> dict:
    return {"key": f"{number:08}" + "f" * 24, "name": f"{number:04}-青瓷", "evidence": "ReadError; HTTP 200"}


def made_summary(code: int = 3, counts: dict | None = None, issues: JobIssues | None = None, **counted) -> dict:
    stats = RunStats(**counted)
    issues = issues or JobIssues(arguments=WORDS)
    reasons = [why for _, why in issues.endings]
    return summary(
        "posters",
        exit_code=code,
        reasons=reasons,
        counts=counts or {},
        stats=stats,
        in_doubt=[],
        seconds=360.0,
        issues=issues,
    )


HINTS = [
    ("failed", "moderation", "change it, then " + RUN),
    ("failed", "invalid", "correct them, then " + RUN),
    ("failed", "provider", RETRY + " --failed --reason provider"),
    ("failed", "abandoned", RETRY + " --failed --reason abandoned"),
    ("failed", "trouble", RETRY + " --failed"),
    ("stranded", "stuck", "free of charge: " + RETRY),
    ("stranded", "no_output", "free of charge: " + RETRY),
    ("stranded", "link_expired", "free of charge: " + RETRY),
    ("done", "partial", "those that it made are here"),
]


@pytest.mark.parametrize(("state", "reason", "hint"), HINTS)
def test_every_reason_has_its_hint(state, reason, hint):
    first, second = issue_lines(JobIssues([group(state, reason, 2, "so it says")], arguments=WORDS))
    assert first.startswith(f"2 {'incomplete' if state == 'done' else state}: {reason} (so it says)")
    assert hint in second


@pytest.mark.parametrize(
    ("issue", "payment"),
    [
        (group("failed", "moderation"), "; not paid for"),
        (group("failed", "moderation", paid=2, cost=8.0), "; 8 beans paid"),
        (group("failed", "moderation", unpriced=1), "; paid for, if the provider bills failures"),
        (group("held", "in_doubt", paid=1, cost=4.0), "; 4 beans at stake"),
        (group("done", "partial"), "partial"),
    ],
)
def test_group_line_shows_payment(issue, payment):
    first, *_ = issue_lines(JobIssues([issue], arguments=WORDS, unit="beans"))
    assert first.endswith(payment)


def test_held_task_comes_first_with_its_resolve_command():
    groups = [group("failed", "moderation", 9), group("held", "in_doubt", 5)]
    text = list(issue_lines(JobIssues(groups, [held(number) for number in range(1, 6)], arguments=WORDS)))
    assert text[0].startswith("5 held: in_doubt")
    commands = [line.strip() for line in text if "runner resolve" in line]
    *single, every = commands
    assert single == [f"runner resolve 'my posters.yaml' 0000000{n} --sandbox --adopt ID" for n in (1, 2, 3)]
    assert every == "all of them at once: runner resolve 'my posters.yaml' --sandbox --all --absent"
    assert "0001-青瓷: ReadError; HTTP 200" in "\n".join(text)
    assert "and 2 more: runner status 'my posters.yaml' --sandbox" in "\n".join(text)
    assert all(word in "\n".join(text) for word in ("--absent", "--abandon"))


def test_in_doubt_tasks_continue_with_run():
    assert list(issue_lines(JobIssues(in_doubt=2, arguments=WORDS)))[1].strip() == RUN


def test_refused_tasks_have_words_of_their_own():
    issues = JobIssues(in_doubt=5, suspects={"1302": 2, "1303": 1}, arguments=WORDS)
    refused, run, doubtful, again = issue_lines(issues)
    assert refused.startswith("3 refused (1302 ×2, 1303): perhaps paid for all the same; looked up before anything is")
    assert doubtful.startswith("2 in doubt")
    assert run.strip() == again.strip() == RUN
    only = JobIssues(in_doubt=1, suspects={"1302": 1}, arguments=WORDS)
    assert len(list(issue_lines(only))) == 2
    assert made_summary(5, {"in_doubt": 1}, only)["suspects"] == {"1302": 1}


def test_held_refusals_say_that_nothing_can_tell():
    issues = JobIssues([group("held", "in_doubt", 2)], [held()], held_suspects={"40000": 1}, arguments=WORDS)
    assert "1 was refused (40000), and the list cannot tell" in "\n".join(issue_lines(issues))


def test_many_codes_are_not_all_named():
    text = report.codes_text({f"code {number}\x1b": 1 for number in range(9)})
    assert text.endswith("and 4 more")
    assert "\x1b" not in text


NEXT_STEPS = [
    (0, {"done": 1}, [], None),
    (3, {"failed": 1}, [group("failed", "moderation")], "change what was refused, then " + RUN),
    (3, {"failed": 2}, [group("failed", "moderation"), group("failed", "provider")], RETRY + " --failed pays anew"),
    (3, {"failed": 1, "stranded": 1}, [group("stranded", "stuck")], RETRY + " fetches"),
    (3, {"done": 1}, [group("done", "partial")], None),
    (4, {"held": 1}, [group("held", "in_doubt")], "runner resolve 'my posters.yaml' 00000001 --sandbox --adopt ID (or"),
    (5, {"queued": 1}, [], RUN),
    (6, {"queued": 1}, [], "top up at the provider, then " + RUN),
    (8, {"queued": 1}, [], "raise limits.max_cost"),
    (143, {"queued": 1}, [], RUN),
]


@pytest.mark.parametrize(("code", "counts", "groups", "command"), NEXT_STEPS)
def test_next_step_fits_the_exit_code(code, counts, groups, command):
    issues = JobIssues(groups, [held()] if code == 4 else [], arguments=WORDS)
    next_step = made_summary(code, counts, issues)["next"]
    assert next_step is None if command is None else next_step.startswith(command), next_step


def test_next_step_of_refused_tasks_says_what_the_run_does():
    issues = JobIssues(in_doubt=1, suspects={"1302": 1}, arguments=WORDS)
    assert made_summary(5, {"in_doubt": 1}, issues)["next"].startswith(f"{RUN} first looks up what was refused")


@pytest.mark.parametrize("name", ["a;rm -rf ~.yaml", "$(id).yaml", "it's.yaml", "`x`.yaml"])
def test_a_command_that_is_copied_runs_nothing_else(name):
    issues = JobIssues([group("held", "in_doubt")], [held()], arguments=[name])
    commands = [line for line in issue_lines(issues) if "runner resolve" in line]
    assert [shlex.split(line)[2] for line in commands] == [name]
    assert shlex.split(made_summary(5, issues=issues)["next"]) == ["runner", "run", name]


def test_rendered_summary():
    issues = JobIssues(
        [group("failed", "moderation", 2, "内容\x1b[2J审核")],
        endings=[(6, "chanjing: 50005 余额不足"), (3, "2 failed, incomplete or out of reach")],
        arguments=["p.yaml"],
        unit="beans",
    )
    text = render(
        made_summary(6, {"done": 1, "failed": 2}, issues, submitted=1, downloaded=1, bytes=2_500_000, cost=4.0),
        issues,
        "out/p",
    )
    assert text.splitlines() == [
        "posters: 1 done · 2 failed",
        "  this run  1 submitted, 1 file (2.5 MB), cost 4 beans in 6 min",
        "  files     out/p",
        "  2 failed: moderation (内容 [2J审核); not paid for",
        "      the provider's content check refused what is asked for: change it, then runner run p.yaml",
        "  chanjing: 50005 余额不足",
        "  next      top up at the provider, then runner run p.yaml",
    ]


def test_the_file_is_whole_and_never_written_through_a_link(tmp_path):
    target, path = tmp_path / "elsewhere", tmp_path / "s.json"
    target.write_text("mine")
    path.symlink_to(target)
    report.write(path, made_summary(0, {"done": 1}))
    assert target.read_text() == "mine"
    assert json.loads(path.read_text())["counts"] == {"done": 1}


def test_some_failed_tasks_are_named_the_rest_counted():
    named = group("failed", "moderation", 5, tasks=["0001-a\x1b[2J", "0002-b", "0003-c"])
    assert (
        list(issue_lines(JobIssues(groups=[named], arguments=WORDS)))[-1]
        == "      0001-a [2J, 0002-b, 0003-c and 2 more"
    )


def test_removed_failures_need_no_action():
    assert list(issue_lines(JobIssues(removed=3, removed_failed=2, arguments=WORDS))) == [
        "1 of them left the manifest: what was bought is kept",
        "2 that failed left the manifest: nothing is to be done about them",
    ]
