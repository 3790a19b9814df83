# ruff: noqa: C901, PLR0912, PLR0915 - a world's moves stand in one place, so that they can be read against the protocol
"""Explicit-state model checker for the paid-submit protocol (docs/invariants.md).

Question: can the client pay twice for one task ("duplicate"), or finish while a paid task is neither
recorded nor held for the user ("silent loss")?  The checker walks EVERY reachable state of a small
abstract world by breadth-first search, so a flaw it reports comes with a shortest event list, and a
flaw it does not report does not exist within the bounds.

    python -m tests.model.submit_model             print the table; exit 0 if all is as it must be, else 1
    python -m tests.model.submit_model --traces    also print the shortest counter-example of every mutant

`test_model.py` runs it. What the names stand for: D is the quiet time, an INTENT is the code's `submitting`, UNSETTLED
its `in_doubt`; R1 to R7 and S1 to S4 are rules of the protocol, C0 to C3 what a provider offers to find a lost send.

Two worlds:

* ``One``: one task, one client, one provider.  Every request and every answer can be delayed past the
  client's timeout, or lost.  The provider may accept or definitively reject any request that reaches
  it, and the lookup may lag behind acceptance.  The client can be killed, or lose power, between any
  two steps.  Answers carry the number of the send they belong to (an HTTP answer cannot cross
  connections).
* ``Duplicates``: two tasks with an identical request on a provider that has no client reference (class C1).
  Only a list can be searched there, so one duplicate can adopt the other duplicate's task.  Kill -9 only.

Time is abstract.  "The quiescence time D has passed" is modelled as its meaning: no request is still
under way and every accepted task is visible (assumptions A3 and A4).  In ``Duplicates`` the weaker form
"D has passed since MY send" covers the requests sent up to that moment and no later one.

Not modelled: two processes (kernel lock and epoch), the journal, breakers, other users of the account,
more than two duplicates, a provider that breaks A3 or A4.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DUP = "duplicate"  # the provider accepted (and bills) more tasks than were asked for
LOSS = "silent loss"  # all finished, yet a paid task is neither recorded nor covered by a hold


# ------------------------------------------------------------------------------------------------
# The explorer: plain breadth-first search, shortest traces, progress check
# ------------------------------------------------------------------------------------------------
@dataclass
class Report:
    states: int
    traces: dict  # flaw name -> shortest list of event labels
    endings: Counter  # outcome name -> number of terminal states
    stuck: int  # states from which no terminal state can be reached


def explore(start, moves: Callable[[Any], Iterable], flaws: Callable, ending: Callable, progress: bool) -> Report:
    """``moves(s)`` gives (label, next state); ``flaws(s)`` flaw names; ``ending(s)`` None or an outcome.
    ``progress`` also looks for states from which the client can never finish."""
    parent: dict = {start: None}
    back: dict = {}  # reverse edges, for the progress check
    first: dict = {}
    endings: Counter = Counter()
    terminal = []
    queue = deque([start])
    while queue:
        state = queue.popleft()
        for name in flaws(state):
            first.setdefault(name, state)
        outcome = ending(state)
        if outcome is not None:
            endings[outcome] += 1
            terminal.append(state)
        for label, nxt in moves(state):
            if progress:
                back.setdefault(nxt, []).append(state)
            if nxt not in parent:
                parent[nxt] = (state, label)
                queue.append(nxt)
    alive = set(terminal)
    queue = deque(terminal)
    while queue:
        for prev in back.get(queue.popleft(), ()):
            if prev not in alive:
                alive.add(prev)
                queue.append(prev)

    def trace(state) -> list:
        labels = []
        while parent[state] is not None:
            state, label = parent[state]
            labels.append(label)
        return labels[::-1]

    stuck = len(parent) - len(alive) if progress else 0
    return Report(len(parent), {k: trace(s) for k, s in first.items()}, endings, stuck)


# ------------------------------------------------------------------------------------------------
# World 1: one task
# ------------------------------------------------------------------------------------------------
class One(NamedTuple):
    durable: Any = "NEW"  # on disk: NEW, INTENT, UNSETTLED, ("ACCEPTED", n), HELD, CLOSED (= booked as not paid)
    cached: tuple = ()  # commits that a power loss would take back (synchronous=NORMAL only)
    pc: str = "idle"  # where the client is: idle, send, wait, settle, down, done
    requests: tuple = ()  # send numbers still on their way to the provider
    answers: tuple = ()  # (send number, "id" or "reject", task number) on their way back
    accepted: int = 0  # tasks at the provider; each one is paid
    visible: int = 0  # how many of them the lookup shows
    crashes: int = 0
    sends: int = 0


@dataclass(frozen=True)
class Protocol:
    """One protocol variant.  The defaults are the correct choices; a mutant changes one of them."""

    policy: str  # after doubt: retry | drop | hold | reconcile
    dedupes: bool = False  # C3: the provider accepts one task per client reference
    intent_first: bool = True  # rule S1: durable intent before the first byte
    full_sync: bool = True  # synchronous=FULL; False = NORMAL
    quiesce: bool = True  # R4: absence counts only after D
    list_lags: bool = True
    reject_own_send_only: bool = True  # R5, first half
    notsent_own_send_only: bool = True  # R5, second half
    mark_on_restart: bool = True  # R2
    power_loss: bool = True
    connect_failures: bool = False  # add sends that provably never left
    max_crashes: int = 2
    max_sends: int = 3


def one_moves(p: Protocol) -> Callable:
    def moves(s: One) -> list:
        record = s.cached[-1] if s.cached else s.durable  # what the client reads back
        out: list = []

        def write(value) -> dict:
            return {"durable": value, "cached": ()} if p.full_sync else {"cached": (*s.cached, value)}

        def go(label: str, **change) -> None:
            for name in ("requests", "answers"):  # one canonical order: fewer states
                if name in change:
                    change[name] = tuple(sorted(change[name]))
            out.append((label, s._replace(**change)))

        # --- the client -------------------------------------------------------------------------
        if s.pc == "idle":
            if record == "NEW":
                if p.intent_first:
                    go("write intent", pc="send", **write("INTENT"))
                else:
                    go("(no intent)", pc="send")
            elif record in ("INTENT", "UNSETTLED"):
                mark = write("UNSETTLED") if p.mark_on_restart else {}
                go("restart finds an open intent", pc="settle", **mark)
            else:
                go("finish", pc="done")
        elif s.pc == "send":
            if s.sends < p.max_sends:
                n = s.sends + 1
                go(f"send #{n}", pc="wait", sends=n, requests=(*s.requests, n))
                if p.connect_failures:
                    if p.notsent_own_send_only and record == "UNSETTLED":
                        go(f"send #{n} proved not sent, earlier send still open", pc="settle", sends=n)
                    else:
                        go(f"send #{n} proved not sent", pc="idle", sends=n, **write("NEW"))
            elif p.connect_failures:
                go("no sends left: hold", pc="idle", **write("HELD"))
        elif s.pc == "wait":
            for answer in s.answers:
                number, kind, task = answer
                if number != s.sends:
                    continue
                rest = tuple(a for a in s.answers if a != answer)
                if kind == "id":
                    go("answer: id", pc="idle", answers=rest, **write(("ACCEPTED", task)))
                elif p.reject_own_send_only and record == "UNSETTLED":
                    go("answer: reject, earlier send still open", pc="settle", answers=rest)
                else:
                    go("answer: definitive reject", pc="idle", answers=rest, **write("CLOSED"))
            if p.intent_first:
                go("timeout or reset: in doubt", pc="settle", **write("UNSETTLED"))
            else:
                go("timeout or reset", pc="send")
        elif s.pc == "settle":
            if p.policy == "retry":
                if s.sends < p.max_sends:
                    go("retry", pc="send")
                elif p.dedupes:
                    go("no sends left: hold", pc="idle", **write("HELD"))
            elif p.policy == "drop":
                go("give up", pc="idle", **write("CLOSED"))
            elif p.policy == "hold":
                go("hold", pc="idle", **write("HELD"))
            elif s.visible:
                go("lookup finds it: adopt", pc="idle", **write(("ACCEPTED", 1)))
            else:
                quiet = not s.requests and s.visible == s.accepted
                if quiet or not p.quiesce:
                    if s.sends < p.max_sends:
                        go("lookup finds nothing: send again", pc="send", **(write("INTENT") if quiet else {}))
                    else:
                        go("no sends left: hold", pc="idle", **write("HELD"))

        # --- the network and the provider ---------------------------------------------------------
        for number in set(s.requests):
            left = list(s.requests)
            left.remove(number)
            rest = tuple(left)
            listening = s.pc == "wait" and number == s.sends

            def reply(kind: str, task: int, number=number, listening=listening) -> tuple:
                return s.answers + (((number, kind, task),) if listening else ())

            if p.dedupes and s.accepted:
                go(f"provider recognises #{number}", requests=rest, answers=reply("id", 1))
            else:
                total = s.accepted + 1
                go(
                    f"provider accepts #{number}",
                    requests=rest,
                    accepted=total,
                    visible=s.visible if p.list_lags else total,
                    answers=reply("id", total),
                )
                go(f"provider rejects #{number}", requests=rest, answers=reply("reject", 0))
            go(f"request #{number} lost", requests=rest)
        if s.visible < s.accepted:
            go("becomes visible", visible=s.accepted)
        if s.answers:
            go("answer lost", answers=())

        # --- the machine --------------------------------------------------------------------------
        if s.pc not in ("down", "done") and s.crashes < p.max_crashes:
            go("KILL -9", pc="down", answers=(), crashes=s.crashes + 1)
            if p.power_loss:
                go("POWER LOSS", pc="down", answers=(), cached=(), crashes=s.crashes + 1)
        if s.pc == "down":
            go("restart", pc="idle")
        if s.cached:
            go("disk flush", durable=s.cached[-1], cached=())
        return out

    return moves


def one_ending(s: One):
    if s.pc != "done" or s.requests:
        return None
    record = s.cached[-1] if s.cached else s.durable
    return record[0] if isinstance(record, tuple) else record


def one_flaws(s: One) -> list:
    found = [DUP] if s.accepted > 1 else []
    if s.accepted and one_ending(s) in ("NEW", "CLOSED"):
        found.append(LOSS)
    return found


def check_one(p: Protocol, progress: bool = True) -> Report:
    return explore(One(), one_moves(p), one_flaws, one_ending, progress)


# ------------------------------------------------------------------------------------------------
# World 2: two tasks with the same fingerprint, list lookup only (class C1)
# ------------------------------------------------------------------------------------------------
class Duplicates(NamedTuple):
    record: tuple = ("NEW", "NEW")  # per duplicate: NEW, INTENT, UNSETTLED, HELD, ("ACCEPTED", task index)
    sends: tuple = (0, 0)
    last: tuple = (0, 0)  # per duplicate: position of its latest send among all sends
    requests: frozenset = frozenset()  # (duplicate, send number, position)
    tasks: tuple = ()  # at the provider: (position, visible)
    answers: frozenset = frozenset()  # (duplicate, task index)
    crashes: int = 0


@dataclass(frozen=True)
class DuplicateProtocol:
    group_quiescence: bool = True  # D counts from the latest doubtful send of the fingerprint, not from one's own
    gate: bool = True  # no new submit of a fingerprint while a duplicate is unsettled (for liveness)
    reopen_on_clash: bool = True  # R6: own answer names a task that a duplicate has adopted
    adopt_in_flight: bool = True  # adopt even while a duplicate waits for its own answer
    oldest_first: bool = False
    max_crashes: int = 1
    max_sends: int = 2


def duplicate_moves(p: DuplicateProtocol) -> Callable:
    def put(values: tuple, i: int, v) -> tuple:
        return (*values[:i], v, *values[i + 1 :])

    def moves(s: Duplicates) -> list:
        out: list = []

        def go(label: str, **change) -> None:
            out.append((label, s._replace(**change)))

        claimed = {r[1] for r in s.record if isinstance(r, tuple)}
        unclaimed = [k for k, (_, seen) in enumerate(s.tasks) if seen and k not in claimed]
        for i in (0, 1):
            me, other, mine = "AB"[i], 1 - i, s.record[i]
            if mine == "NEW":
                if s.sends[i] == p.max_sends:
                    go(f"{me} no sends left: hold", record=put(s.record, i, "HELD"))
                elif not (p.gate and s.record[other] == "UNSETTLED"):
                    n, pos = s.sends[i] + 1, max(s.last) + 1
                    go(
                        f"{me} intent and send #{n}",
                        record=put(s.record, i, "INTENT"),
                        sends=put(s.sends, i, n),
                        last=put(s.last, i, pos),
                        requests=s.requests | {(i, n, pos)},
                    )
            elif mine == "INTENT":
                go(
                    f"{me} in doubt",
                    record=put(s.record, i, "UNSETTLED"),
                    answers=frozenset(a for a in s.answers if a[0] != i),
                )
                for answer in s.answers:
                    if answer[0] != i:
                        continue
                    if answer[1] in claimed and p.reopen_on_clash:
                        go(
                            f"{me} own answer T{answer[1]} already adopted by the duplicate: stays open",
                            record=put(s.record, i, "UNSETTLED"),
                            answers=s.answers - {answer},
                        )
                    else:
                        go(
                            f"{me} own answer T{answer[1]}",
                            record=put(s.record, i, ("ACCEPTED", answer[1])),
                            answers=s.answers - {answer},
                        )
            elif mine == "UNSETTLED":
                duplicate_waits = s.record[other] == "INTENT"
                duplicate_older = s.record[other] == "UNSETTLED" and s.last[other] < s.last[i]
                if (p.adopt_in_flight or not duplicate_waits) and not (p.oldest_first and duplicate_older):
                    for k in unclaimed:
                        go(f"{me} adopts T{k}", record=put(s.record, i, ("ACCEPTED", k)))
                if p.group_quiescence:
                    quiet = not s.requests and all(seen or k in claimed for k, (_, seen) in enumerate(s.tasks))
                else:
                    quiet = all(pos > s.last[i] for _, _, pos in s.requests) and all(
                        seen or pos > s.last[i] for pos, seen in s.tasks
                    )
                if quiet and not unclaimed and not duplicate_waits:
                    go(f"{me} absent after D", record=put(s.record, i, "NEW"))
        for request in s.requests:
            i, n, pos = request
            rest, k = s.requests - {request}, len(s.tasks)
            listening = s.record[i] == "INTENT" and s.sends[i] == n
            go(
                f"provider accepts {'AB'[i]}#{n} as T{k}",
                requests=rest,
                tasks=(*s.tasks, (pos, False)),
                answers=s.answers | {(i, k)} if listening else s.answers,
            )
            go(f"request {'AB'[i]}#{n} lost", requests=rest)
        for k, (pos, seen) in enumerate(s.tasks):
            if not seen:
                go(f"T{k} becomes visible", tasks=put(s.tasks, k, (pos, True)))
        if s.crashes < p.max_crashes:
            go(
                "KILL -9 and restart",
                crashes=s.crashes + 1,
                answers=frozenset(),
                record=tuple("UNSETTLED" if r == "INTENT" else r for r in s.record),
            )
        return out

    return moves


def duplicate_ending(s: Duplicates):
    if s.requests or not all(isinstance(r, tuple) or r == "HELD" for r in s.record):
        return None
    return "HELD" if "HELD" in s.record else "ACCEPTED"


def duplicate_flaws(s: Duplicates) -> list:
    found = [DUP] if len(s.tasks) > 2 else []
    claimed = {r[1] for r in s.record if isinstance(r, tuple)}
    if duplicate_ending(s) and len(s.tasks) - len(claimed) > s.record.count("HELD"):
        found.append(LOSS)
    return found


def check_duplicates(p: DuplicateProtocol, progress: bool = True) -> Report:
    return explore(Duplicates(), duplicate_moves(p), duplicate_flaws, duplicate_ending, progress)


# ------------------------------------------------------------------------------------------------
# The table
# ------------------------------------------------------------------------------------------------
class Row(NamedTuple):
    name: str
    what: str
    protocol: Any
    must: frozenset = frozenset()  # flaws that MUST be found; empty = the variant must hold


def rows() -> list:
    dup, loss, both = frozenset({DUP}), frozenset({LOSS}), frozenset({DUP, LOSS})
    hold, rec = Protocol("hold"), Protocol("reconcile")
    c3 = Protocol("retry", dedupes=True)

    def but(p, **change):
        return type(p)(**{**p.__dict__, **change})

    wide = {"max_crashes": 4, "max_sends": 5}
    near = {"connect_failures": True}
    duplicates = DuplicateProtocol()
    return [
        Row("P0", "hold (C0)", hold),
        Row("P1/P2", "reconcile after D (C1, C2)", rec),
        Row("P3", "provider dedupes, retry same reference (C3)", c3),
        Row("P3b", "provider dedupes, reconcile without D", but(c3, policy="reconcile", quiesce=False)),
        Row("P0n", "hold, NORMAL, kill -9 but never power loss", but(hold, full_sync=False, power_loss=False)),
        Row("P0+", "P0, up to 4 crashes and 5 sends", but(hold, **wide)),
        Row("P1/P2+", "P1/P2, up to 4 crashes and 5 sends", but(rec, **wide)),
        Row("P3+", "P3, up to 4 crashes and 5 sends", but(c3, **wide)),
        Row("P0c", "P0 with sends that provably never left", but(hold, **near)),
        Row("P1/P2c", "P1/P2 with sends that provably never left", but(rec, **near)),
        Row("P3c", "P3 with sends that provably never left", but(c3, **near)),
        Row("T", "duplicates: D per fingerprint, gate, R6", duplicates),
        Row("T-open", "duplicates: D per fingerprint, R6, no gate", but(duplicates, gate=False)),
        Row(
            "T-old",
            "duplicates: own D, oldest first, none in flight",
            but(duplicates, group_quiescence=False, gate=False, oldest_first=True, adopt_in_flight=False),
        ),
        Row("M1", "no intent, id recorded after, retry", Protocol("retry", intent_first=False), both),
        Row("M2", "intent, retry on doubt (at least once)", Protocol("retry"), dup),
        Row("M3", "intent, give up on doubt (at most once)", Protocol("drop"), loss),
        Row("M4", "reconcile without D", but(rec, quiesce=False), dup),
        Row("M5", "M4 with an instantly consistent list", but(rec, quiesce=False, list_lags=False), dup),
        Row("M6", "hold, NORMAL, power loss", but(hold, full_sync=False), both),
        Row("M7", "reconcile after D, NORMAL, power loss", but(rec, full_sync=False), both),
        Row("M8", "C3, a reject settles an earlier send", but(c3, reject_own_send_only=False), loss),
        Row("M9", "C3, restart leaves no durable mark", but(c3, mark_on_restart=False), loss),
        Row("M10", "C3, 'not sent' settles an earlier send", but(c3, notsent_own_send_only=False, **near), loss),
        Row("M11", "duplicates: D counted from one's own send", but(duplicates, group_quiescence=False), both),
        Row(
            "M12",
            "M11, oldest first, in-flight duplicate ignored",
            but(duplicates, group_quiescence=False, gate=False, oldest_first=True),
            both,
        ),
        Row("M13", "duplicates: clash with an adopted id ignored", but(duplicates, reopen_on_clash=False), loss),
    ]


def checked(row: Row) -> Report:
    """Every reachable state of the row's protocol."""
    check = check_one if isinstance(row.protocol, Protocol) else check_duplicates
    return check(row.protocol, progress=not row.must)


def verdict(row: Row, report: Report) -> str:
    """What is wrong with the row, in words; nothing where it is as it must be."""
    found = set(report.traces)
    if row.must:
        if not found:
            return "SURVIVED"
        return "" if found == set(row.must) else "CHANGED: expected " + ", ".join(sorted(row.must))
    if found:
        return "FAILS: " + ", ".join(sorted(found))
    if report.stuck:
        return f"FAILS: {report.stuck} states cannot finish"
    return "" if report.endings["ACCEPTED"] else "FAILS: holds only because it never succeeds"


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description="Model-check the paid-submit protocol.")
    parser.add_argument("--traces", action="store_true", help="print the shortest counter-examples")
    args = parser.parse_args(argv)
    began, bad, traces = time.perf_counter(), [], []
    print(f"{'variant':8}{'protocol':46}{'states':>7}  {'duplicate':10}{'silent loss':12}{'must':6}result")
    for row in rows():
        report = checked(row)
        found = set(report.traces)
        problem = verdict(row, report)
        if problem:
            bad.append(row.name)
        flag = {True: "YES", False: "no"}
        print(
            f"{row.name:8}{row.what:46}{report.states:7}  {flag[DUP in found]:10}{flag[LOSS in found]:12}"
            f"{'hold' if not row.must else 'fail':6}{problem or 'ok'}"
        )
        traces += [(row.name, flaw, report.traces[flaw]) for flaw in sorted(found)]
    if args.traces:
        print()
        for name, flaw, labels in traces:
            print(f"{name} {flaw}: " + " > ".join(labels))
    print(
        f"\n{len(rows())} variants, {time.perf_counter() - began:.1f} s: "
        + ("all as required" if not bad else "NOT AS REQUIRED: " + ", ".join(bad))
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
