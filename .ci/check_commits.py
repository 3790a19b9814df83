#!/usr/bin/env python3
"""Check that commit messages read `area: Imperative subject`, with a body.

.ci/check_commits.py              every commit after BASE, but merges
.ci/check_commits.py --message F  the message in the file F (as the hook commit-msg does)
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

#: the last commit before the rule
BASE = "ccf2609"
LONGEST = 72

_AREA = r"[a-z0-9._-][a-z0-9/._-]*"
_SUBJECT = re.compile(rf"(?P<area>{_AREA}(?:, {_AREA})*): (?P<words>.+)")
#: verbs of subjects in forms that are no imperative; others that end so are (Embed, Bring, Focus)
_VERBS = [
    "add", "allow", "bump", "change", "check", "clean", "correct", "create", "delete", "describe", "document",
    "drop", "enable", "ensure", "extend", "fix", "handle", "implement", "improve", "inline", "introduce", "keep",
    "make", "mark", "mend", "merge", "move", "name", "prevent", "refactor", "release", "remove", "rename",
    "replace", "report", "revise", "rewrite", "run", "say", "set", "show", "simplify", "split", "stop", "support",
    "switch", "test", "tidy", "turn", "update", "use", "write",
]  # fmt: skip
_IRREGULAR = {"kept", "made", "ran", "said", "wrote", "rewrote", "written", "rewritten", "running", "setting"} | {
    "dropped", "dropping", "splitting", "stopped", "stopping",
    "simplified", "tidied",
}  # fmt: skip


def _forms(verb: str) -> set[str]:
    stem = verb.removesuffix("e")
    return {f"{stem}ed", f"{stem}ing", f"{verb}s", f"{verb}es", f"{verb.removesuffix('y')}ies"}


NOT_IMPERATIVE = frozenset(_IRREGULAR.union(*map(_forms, _VERBS)) - set(_VERBS))


def check_subject(text: str) -> list[str]:
    """Return what is wrong with a commit message, one sentence each; an empty list if nothing is."""
    subject, *rest = text.rstrip().split("\n")
    found = []
    if len(subject) > LONGEST:
        found.append(f"the subject has {len(subject)} characters; at most {LONGEST} are allowed")
    if subject.endswith("."):
        found.append("the subject ends with a full stop")
    match = _SUBJECT.fullmatch(subject)
    if match is None:
        found.append("the subject does not read `area: Imperative subject`, with the area in small letters")
    else:
        first = match["words"].split()[0]
        if not first[0].isupper():
            found.append(f"{first!r} after the colon does not begin with a capital letter")
        if first.lower() in NOT_IMPERATIVE:
            found.append(f"{first!r} is no imperative: write what the commit does, as in `Fix` or `Add`")
    if rest and rest[0].strip():
        found.append("the second line is not blank")
    if not any(line.strip() for line in rest[1:]):
        found.append("the body is missing: say why, and how it was tested")
    return found


def check_message(text: str) -> list[str]:
    """Return what is wrong with a message as an editor leaves it; comments do not count, and a merge is exempt."""
    text = re.split(r"^# -+ >8 -+$", text, maxsplit=1, flags=re.MULTILINE)[0]
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#")).strip("\n")
    return [] if kept.startswith("Merge ") else check_subject(kept)


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout


def _is_ancestor(commit: str) -> bool:
    done = subprocess.run(["git", "merge-base", "--is-ancestor", commit, "HEAD"], capture_output=True, check=False)
    return done.returncode == 0


def check_history(base: str = BASE) -> int:
    """Check each commit after the base that is no merge, and print what is wrong; return the exit code."""
    try:
        shallow = _git("rev-parse", "--is-shallow-repository").strip() == "true"
    except (OSError, subprocess.CalledProcessError):
        print("commits: there is no git history here; nothing is checked")
        return 0
    if shallow or not _is_ancestor(base):
        why = "the history is shallow" if shallow else f"{base} is not in it"
        print(f"commits: only HEAD is checked, since {why}")
        chosen = ["-1", "HEAD"]
    else:
        chosen = [f"{base}..HEAD"]
    log = _git("log", "--format=%h%x00%p%x00%B%x01", *chosen)
    wrong = checked = 0
    for entry in log.split("\x01"):
        if not entry.strip():
            continue
        commit, parents, message = entry.strip("\n").split("\0")
        if len(parents.split()) > 1:
            continue
        checked += 1
        if problems := check_subject(message):
            wrong += 1
            print(f"{commit} {message.splitlines()[0]}", *(f"  {problem}" for problem in problems), sep="\n")
    print(f"commits: {checked} checked, {wrong} wrong")
    return 1 if wrong else 0


def main(arguments: list[str] | None = None) -> int:
    """Check what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description="Check commit messages.")
    parser.add_argument("--message", type=Path, metavar="FILE", help="check the message in this file")
    asked = parser.parse_args(arguments)
    if asked.message is None:
        return check_history()
    problems = check_message(asked.message.read_text(encoding="utf-8"))
    for problem in problems:
        print(f"commit message: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
