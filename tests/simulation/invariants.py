"""Invariants after every event: the provider's ledger against database and journal.

Their numbers are those of docs/invariants.md.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict

from runner.store import journal, recovery
from runner.tasks.models import State, Task

OPEN = {"submitting", "in_doubt", "held"}
FINAL = {"done", "failed", "held", "stranded"}
#: what the journal's history of a reference leads to, and the states that agree with it
AGREES = {
    State.SUBMITTING: {"submitting", "in_doubt"},
    State.HELD: {"held"},
    State.RUNNING: {"running", "ready", "stranded"},
    State.QUEUED: {"queued"},
    State.FAILED: {"failed"},
    State.DONE: {"done"},
}
_ROWS = "select key, ref, state, remote_id, generation, due_at from task order by id"
_SUSPECTS = "select key from task where state = 'in_doubt' and evidence like 'refused, and looked up: %'"
_WAITING = "select count(*) from task where state = 'in_doubt' and due_at is null and message like 'not found, and %'"


class Invariants:
    """A checker independent of the client. `group_of` returns the key by which the provider knows a row's task."""

    def __init__(self, state, provider, group_of):
        self._state, self._provider, self._group_of = state, provider, group_of
        #: keys of refused submits that are looked up
        self._suspects = set()
        self._reader = None
        # where the provider breaks A4 and keeps references once each, a task believed absent is found by a refusal
        self._covered = OPEN | {"queued"} if provider.plan.hides else OPEN
        # an intent that a full disk allowed in the journal alone was given up, and nothing left: the safe direction
        self._agrees = (
            {**AGREES, State.SUBMITTING: {"submitting", "in_doubt", "queued"}} if provider.plan.disk_full else AGREES
        )
        #: what no client could know: tasks that looked absent, and rows that took another's task
        self._excused = set()
        self._before = {}
        self._recorded = {}
        self._offset = 0
        self.checks = 0

    def rows(self):
        if self._reader is None:
            if not (self._state / "state.db").exists():
                return []
            self._reader = sqlite3.connect(self._state / "state.db", isolation_level=None)
        try:
            return self._reader.execute(_ROWS).fetchall()
        except sqlite3.OperationalError:
            return []  # the tables are not there yet

    def waiting(self):
        """Return the number of tasks that only a later purchase can settle."""
        return self._reader.execute(_WAITING).fetchone()[0] if self.rows() else 0

    def _adopted(self):
        """Return the ids that were found, and not answered. They tell nothing about what a list shows."""
        return {row[0] for row in self._reader.execute("select remote_id from task where adopted = 1")}

    def close(self):
        if self._reader is not None:
            self._reader.close()

    def broken(self):
        """Return a description of the first violated invariant, or None."""
        self.checks += 1
        self._provider.advance()
        rows = self.rows()
        return self._ledger(rows) or self._monotone(rows)

    def _ledger(self, rows):
        """Check that nothing is paid twice or lost, and that every id belongs to its row."""
        expected, open_, claimed = Counter(), Counter(), {}
        for key, ref, state, remote_id, _, _ in rows:
            group = self._group_of(key, ref)
            expected[group] += 1
            open_[group] += state in self._covered
            if remote_id is not None:
                made = self._provider.by_id(remote_id)
                if made is None:
                    return f"{ref} has the id {remote_id}, which the provider never gave"
                if made.id in claimed:
                    return f"I7: {remote_id} is claimed by {claimed[made.id]} and {ref}"
                claimed[made.id] = ref
                if made.group != group:
                    if (ref, made.id) not in self._excused and not self._provider.may_be_taken(
                        made, group, self._adopted
                    ):
                        return f"I7: {ref} took {remote_id}, which belongs to {made.group}"
                    self._excused.add((ref, made.id))
                    open_[group] += 1  # ours may be the one that nobody has; it is still not paid twice
        for group, made in self._provider.groups.items():
            broken = self._count(group, made, expected[group], open_[group], claimed)
            if broken:
                absent = {each.id for each in made if self._provider.may_look_absent(each, self._adopted)}
                self._excused |= absent
                broken = self._count(group, made, expected[group], open_[group], claimed) if absent else broken
            if broken:
                return broken
        self._provider.saw_claims(claimed)
        return None

    def _count(self, group, made, expected, open_, claimed):
        accepted = sum(not each.echo and each.id not in self._excused for each in made)
        if accepted > expected:
            return f"DUPLICATE: {accepted} accepted for {expected} of {group[:60]}"
        orphans = sum(each.id not in claimed for each in made)
        if orphans - (len(made) - accepted) > open_:
            return f"LOST: {orphans} without a row, {open_} open for {group[:60]}"
        return None

    def _monotone(self, rows):
        """Check that final states and ids do not change (I8)."""
        self._suspects = {row[0] for row in self._reader.execute(_SUSPECTS)} if rows else set()
        for key, _, state, remote_id, generation, _ in rows:
            was = self._before.get(key)
            if was is not None and was[2] == generation:
                if was[0] in {"done", "failed"} and state != was[0]:
                    return f"I8: {key} was {was[0]} and is {state}"
                if was[1] is not None and remote_id != was[1]:
                    return f"I8: {key} had the id {was[1]} and has {remote_id}"
            self._before[key] = (state, remote_id, generation)
        return None

    def too_early(self, now, doubt):
        """Check that a task counts as absent only the quiet time D after the last doubtful send, in true time (I5).

        Call it right after the row was written, because a later call may come after the next send. A submit that was
        refused is not under way, whatever became of a duplicate's.
        """
        for key, ref, state, _, _, _ in self.rows():
            if state not in {"queued", "submitting"} or self._before.get(key, ("",))[0] != "in_doubt":
                continue
            if key in self._suspects:
                continue
            sents = self._provider.sents_by_group[self._group_of(key, ref)]
            latest = max((sent.at for sent in sents if not sent.clear), default=None)
            if latest is not None and now - latest < doubt - 1e-6:
                return f"I5: {ref} is believed absent {now - latest:.3f} s after a doubtful send, D is {doubt:g} s"
        return None

    def submit_allowed(self, sent, on_wire):
        """Check that a request that leaves has its intent on disk, in row and journal (I1, I2)."""
        self._read_journal()
        rows = [row for row in self.rows() if row[2] == "submitting" and self._group_of(row[0], row[1]) == sent.group]
        if len(rows) < on_wire:
            return f"I1: a request for {sent.group[:60]} leaves and {len(rows)} rows say so of {on_wire} on the wire"
        for row in rows:
            if row[1] not in self._recorded or self._recorded[row[1]].state is not State.SUBMITTING:
                return f"I1: {row[1]} leaves and the journal does not know"
        return None

    def _read_journal(self):
        tail = journal.read_tail(self._state / "journal.jsonl", self._offset)
        self._offset = tail.end
        for line in tail.lines:
            ref = line.get("ref", "")
            if ref:
                self._recorded[ref] = recovery.apply(self._recorded.get(ref) or _blank(ref), line)

    def journal_agrees(self):
        """Check that journal and database have the same history of every task (R1)."""
        self._read_journal()
        for _, ref, state, remote_id, _, _ in self.rows():
            recorded = self._recorded.get(ref)
            if recorded is None:
                if state != "queued":
                    return f"{ref} is {state}, and the journal knows nothing of it"
            elif state not in self._agrees[recorded.state] or (
                recorded.remote_id != remote_id and recorded.state is not State.FAILED
            ):
                return f"{ref} is {state} with {remote_id}; the journal says {recorded.state} with {recorded.remote_id}"
        return None

    def files(self, directory):
        """Check that finished tasks have their files with the recorded bytes (I9)."""
        query = "select file, sha256 from output join task on task.id = task_id where task.state = 'done'"
        for file, sha256 in self._reader.execute(query).fetchall():
            if hashlib.sha256((directory / file).read_bytes()).hexdigest() != sha256:
                return f"I9: {file} is not what was recorded"
        return None

    def histories_agree(self):
        """Return the histories, read as `recover` reads them."""
        found = recovery.read_histories(self._state / "journal.jsonl").histories
        sent = {ref for _, ref, state, _, _, _ in self.rows() if state != "queued"}
        recorded = {history.intent["ref"] for history in found}
        return None if sent <= recorded else f"recovery knows nothing of {sorted(sent - recorded)}"


def by_state(rows):
    counts = defaultdict(int)
    for row in rows:
        counts[row[2]] += 1
    return dict(counts)


def _blank(ref):
    return Task(0, "", "", "", "", State.QUEUED, None, ref=ref)
