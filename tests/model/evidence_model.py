"""Model of the paid submit where a provider differs from its documents, or a state on the disk is not the newest.

`submit_model` shows the protocol under its assumptions A1 to A6. This one drops A4, A5, A6 and "the newest state" one
by one and in pairs. It asks of every reachable state whether the provider accepted two tasks for one of ours (TWICE),
whether we hold a task of somebody else's request (FOREIGN), whether a paid task of ours is neither recorded nor held
when all is at rest (LOSS), and how many tasks a person has to decide about (HELD).

One account, one list. The provider keeps a log of accepted tasks; a reading shows a prefix of it (a replica is behind),
of that perhaps only the newest or the oldest rows. Requests, answers and visibility are delayed without bound, requests
and answers are lost, the client is killed at any step, and a snapshot of its disk may be put back once. "D passes"
for x is possible once its request is no longer under way (A3, kept), at an honest provider also only once x, if
accepted, is visible. Everything else is order, not seconds.

What no evidence can replace is uniformity: the list treats the task whose answer was lost as it treats its neighbours.

    python -m tests.model.evidence_model             the table and the mutants; exit 0 if every row is as it must be
    python -m tests.model.evidence_model --traces    with the shortest counter-example of every failing row
    python -m tests.model.evidence_model --pairs     also every pair of adversities
    python -m tests.model.evidence_model --needed    is every hold of an honest world one that no rule could avoid?
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

TWICE, FOREIGN, LOSS = "paid twice", "foreign adopted", "silent loss"
PRIOR, STRANGER, TWIN = "P", "S", "F"  # owners in the log that are not tasks of this job


class Rec(NamedTuple):
    """One task of ours, as the client's disk has it (journal and database together)."""

    st: str = "NEW"  # NEW SENT DOUBT SUSPECT HELD ACC
    first: int = 0  # position of its first send; 0 = never sent
    mark: int = 0  # position at which D had passed for its latest send; 0 = not yet
    said: int = 0  # position at which a refusal came as the answer to it; 0 = none
    sends: int = 0
    entry: int = -1  # its task at the provider
    miss: int = 99  # fewest rows of a complete reading that did not show it


class World(NamedTuple):
    rec: tuple
    log: tuple = ()  # (owner, position)
    vis: int = 0  # a reading shows log[:vis], perhaps cut
    req: frozenset = frozenset()  # (task, send)
    ans: frozenset = frozenset()  # (task, send, kind, entry)
    pos: int = 1
    lag: int = 0  # measured lag of own tasks: 0 unknown, 1 far below D, 2 not
    rows: int = 0  # most rows that one reading has ever shown
    free: int = 0  # "this refusal costs nothing": 0 documented, 1 measured, 2 contradicted
    before: int = 0  # log entries that a reading had shown before the first send
    faults: int = 0
    kills: int = 0
    twin: int = 0  # foreign tasks still to come
    snap: tuple | None = None  # what a backup holds
    put_back: bool = False
    ghost: tuple = ()  # tasks that another life of this state may still send
    sent_ever: int = 0  # a mark kept outside of what is backed up
    met: bool = False  # a row that nobody of this home explains has been seen


@dataclass(frozen=True)
class Provider:
    kind: str = "C2"  # C2: reference, shown in the list.  C1: list without.  C0: neither
    prior: bool = True  # two own tasks accepted earlier are in the list and known: a calibrated account
    echo: bool = True  # the list shows what a task of ours is known again by (reference, or its fields)
    unique: bool = False  # a second task with the same reference is refused, and said so
    lag: str = "honest"  # honest: visible within D.  const: always later.  grows: was within D, is not any more
    cap: int = 0  # the list shows so many rows at most
    keep: str = "newest"  # ... the newest or the oldest; the order of the rows shows which
    holes: bool = False  # every other row is missing
    blank: bool = False  # the list is well formed and always empty (another project's, another type's)
    times: bool = True  # rows have readable times
    stranger: bool = False  # somebody else has been seen on this account
    old_twin: bool = False  # a foreign task that looks like our first one stood in the list before
    twin: int = 0  # foreign tasks, looking like our first one, that may come at any time
    hidden: bool = False  # and a field that the list does not show differs
    refuses: bool = False  # may refuse as "too fast"
    charges: str = ""  # always, sometimes: ... and make the task all the same
    ignores: bool = False  # a question by reference is answered with the newest task, whatever was asked
    restore: str = ""  # "slow", "fast": a snapshot is put back (within D of the last send); "copy": as a file copy
    fork: bool = False  # the snapshot goes on elsewhere at the same time
    kills: int = 1
    faults: int = 1
    tasks: int = 2
    submits: int = 2  # requests on the wire at the same time


@dataclass(frozen=True)
class Rules:
    echo: bool = True  # E1  absence and adoption only by what an own accepted task was seen to come back with
    back: bool = True  # E2  the reading reaches back before the first send, or was not cut (row count)
    complete: bool = True  # E3  every own accepted task stands in the same reading
    fresh: str = "WM"  # E4  W: an own task accepted after D stands in it.  M: else, at the end, the measured lag
    fresh_after_d: bool = True  #     ... accepted after D has passed, not merely after the send
    order: bool = True  #     M only where the rows were seen to come newest first
    anchor: bool = True  #     a row count proves reach only with an own row that stands in both readings
    refusal: str = "first"  # E5  trust; first: looked up until the code was seen to be free; each: always looked up
    answered: bool = True  #     a task made under a refusal stands before whatever was accepted after its answer
    agrees: bool = True  #     without a later task a refusal is believed only where nothing contradicts the list
    alone: str = "seen"  # E6  hidden fields: adopt only where nobody else is seen, or declared, on the account
    count: bool = True  # E7  more candidates than doubts: nobody knows which; where others are seen, D first
    closing: bool = True  # E12 a run with doubts ends with a reading that tells what is like ours and nobody's
    seen_before: bool = True  # E8  what stood in the list before the first send is not ours
    dated: bool = True  #     without a readable time and with hidden fields: perhaps
    control: bool = True  # E9  an answer by reference must name it, or a reference never used must be unknown
    start: bool = True  # E10 each start reads the list for purchases of this job that the state does not know
    fence: bool = True  # E11 a copied state (other inode, other machine), or one behind its outside mark, buys nothing
    freeze: bool = True  #     ... and sends nothing again
    outside: bool = False  #     a lease outside of the machine is set up
    strict_c0: bool = False  # C0 holds after a refusal, too


TODAY = Rules(
    echo=False,
    back=False,
    complete=False,
    fresh="",
    refusal="trust",
    alone="",
    count=False,
    closing=False,
    seen_before=False,
    dated=False,
    control=False,
    start=False,
    fence=False,
)
NEW = Rules()
STRICT = Rules(fresh="W", refusal="each", alone="declared", outside=True, strict_c0=True)


# ------------------------------------------------------------------------------------------------------------------
def shown(w: World, p: Provider) -> range:
    if p.blank:
        return range(0)
    if p.holes:
        return range(0, w.vis, 2)
    if p.cap and w.vis > p.cap:
        return range(w.vis - p.cap, w.vis) if p.keep == "newest" else range(p.cap)
    return range(w.vis)


def own(w: World, p: Provider) -> set:
    """Entries that are known to be ours."""
    known = {r.entry for r in w.rec if r.st == "ACC"}
    return known | ({0, 1} if p.prior else set())


def alike(w: World, p: Provider, i: int, k: int) -> bool:
    """Whether entry k looks like task i to somebody who sees the list."""
    owner = w.log[k][0]
    if p.kind == "C2":
        return p.echo and owner == i
    return p.echo and (owner == i or (owner == TWIN and i == 0))


def candidates(w: World, p: Provider, r: Rules, i: int) -> tuple:
    """(rows that are taken for task i, rows that might be)"""
    mine, perhaps, claimed = [], [], own(w, p)
    for k in shown(w, p):
        if k in claimed or not alike(w, p, i, k):
            continue
        if p.kind == "C2":
            mine.append(k)
            continue
        if r.seen_before and k < w.before:
            continue
        if p.times and w.log[k][1] < w.rec[i].first:
            continue
        if not p.times and p.hidden and r.dated:
            perhaps.append(k)
            continue
        mine.append(k)
    if p.kind == "C1" and mine:
        others = w.met or bool(strangers(w, p) - set(mine))
        unsure = r.alone == "declared" or (r.alone == "seen" and others)
        if (p.hidden and unsure) or (r.count and (len(mine) > 1 or (others and not w.rec[i].mark))):
            return [], mine + perhaps
    return mine, perhaps


def strangers(w: World, p: Provider) -> set:
    """Rows that nothing explains: nobody claims them, and they look like no task of ours that waits for an answer."""
    waiting = [i for i, e in enumerate(w.rec) if e.st not in ("NEW", "ACC")]
    return {k for k in shown(w, p) if k not in own(w, p) and not any(alike(w, p, i, k) for i in waiting)}


def reads(w: World, p: Provider, r: Rules) -> World:
    """What a client that looks often has learnt from the present reading."""
    rows = shown(w, p)
    rec = list(w.rec)
    if all(k in rows for k in own(w, p)) and (own(w, p) or not r.anchor):
        for i, each in enumerate(rec):
            if each.st in ("DOUBT", "SUSPECT") and not any(alike(w, p, i, k) and k not in own(w, p) for k in rows):
                rec[i] = each._replace(miss=min(each.miss, len(rows)))
    met = w.met or (p.kind == "C1" and bool(strangers(w, p)))
    return w._replace(rec=tuple(rec), rows=max(w.rows, len(rows)), met=met)


def absent(w: World, p: Provider, r: Rules, i: int, still: bool, after: int = 0) -> bool:
    """Whether the rules believe that task i was never accepted (D has passed, no row is or may be it)."""
    each, rows, mine = w.rec[i], shown(w, p), own(w, p)
    if p.kind == "C0":
        return False
    seen = [k for k in mine if k in rows]
    if r.echo and not (seen and p.echo):
        return False
    if not r.echo and p.kind == "C1" and not (mine and p.echo):
        return False  # today: the echo of a model is learnt at its first accepted task, in C1 alone
    if r.complete and len(seen) < len(mine):
        return False
    older = any(w.log[k][1] < each.first for k in (rows if p.times else seen))
    if r.back and not older and not each.miss < w.rows:
        return False
    after = after or (each.mark if r.fresh_after_d else each.first)
    if r.fresh and not any(w.log[k][1] > after for k in seen):
        newest_first = len(seen) > 1 and p.keep == "newest"  # as own rows stand in the order of their answers
        return "M" in r.fresh and still and w.lag == 1 and (newest_first or not r.order)
    return True


def decide(w: World, p: Provider, r: Rules, i: int) -> tuple:
    """(what, entry) for a task in doubt: adopt, again, or nothing yet."""
    each = w.rec[i]
    if p.ignores and not r.control and w.vis:
        return "adopt", w.vis - 1  # "this is the task of that reference": believed
    mine, perhaps = candidates(w, p, r, i)
    if mine:
        return "adopt", mine[0]
    if perhaps:
        return "", -1
    if each.st == "SUSPECT" and r.answered and absent(w, p, r, i, still=False, after=each.said):
        return "again", -1  # seconds after the refusal, by the next task that is accepted
    if not each.mark:
        return "", -1
    still = all(o.st in ("ACC", "HELD", "DOUBT", "SUSPECT") for o in w.rec)
    if absent(w, p, r, i, still):
        return "again", -1
    sound = (p.echo and own(w, p) <= set(shown(w, p))) or not own(w, p)  # nothing that we know contradicts the list
    sound = sound or not r.agrees
    if each.st == "SUSPECT" and r.refusal == "first" and still and sound and not w.req and w.vis == len(w.log):
        return "again", -1  # the documentation says free, and the list does not say otherwise
    return "", -1


def canonical(w: World) -> World:
    """Only the order of positions matters; sends of what is settled do not matter any more."""
    used = {e[1] for e in w.log} | {x for e in w.rec for x in (e.first, e.mark, e.said)} | {0}
    if w.snap:
        used |= {x for e in w.snap[0] for x in (e.first, e.mark, e.said)}
    rank = {x: n for n, x in enumerate(sorted(used))}

    def settled(e: Rec) -> Rec:
        if e.st in ("ACC", "HELD"):
            return Rec(e.st, entry=e.entry)
        return e._replace(first=rank[e.first], mark=rank[e.mark], said=rank[e.said])

    snap = w.snap and (tuple(settled(e) for e in w.snap[0]), *w.snap[1:])
    return w._replace(
        rec=tuple(settled(e) for e in w.rec), log=tuple((o, rank[x]) for o, x in w.log), snap=snap, pos=len(rank)
    )


def moves(p: Provider, r: Rules):  # noqa: C901, PLR0915 - every move of everybody, on one page
    def step(w: World) -> list:  # noqa: C901, PLR0912, PLR0915
        out: list = []

        def go(label: str, **change) -> None:
            out.append((label, canonical(reads(w._replace(**change), p, r))))

        def put(i: int, **change) -> tuple:
            return (*w.rec[:i], w.rec[i]._replace(**change), *w.rec[i + 1 :])

        name = "abc"
        claimed = own(w, p)
        at_rest = not w.req and not w.ans and w.vis == len(w.log) and not w.ghost
        for i, each in enumerate(w.rec):
            if each.st == "NEW":
                n = each.sends + 1
                if sum(o.st == "SENT" for o in w.rec) >= p.submits or (i and n == 1 and w.rec[i - 1] == Rec()):
                    continue  # tasks are begun in order
                if n > p.faults + p.kills + 1 + bool(p.restore):
                    go(f"{name[i]}: sends are used up, held", rec=put(i, st="HELD"))
                    continue
                go(
                    f"{name[i]}: intent, send #{n}",
                    rec=put(i, st="SENT", first=each.first or w.pos, mark=0, said=0, sends=n, miss=99),
                    req=w.req | {(i, n)},
                    pos=w.pos + 1,
                    sent_ever=w.sent_ever + 1 if p.restore else 0,
                )
            elif each.st == "SENT":
                for a in w.ans:
                    if a[0] != i or a[1] != each.sends:
                        continue
                    rest = w.ans - {a}
                    if a[2] == "id":
                        taken = a[3] in claimed
                        go(
                            f"{name[i]}: answer, id T{a[3]}",
                            ans=rest,
                            rec=put(i, st="DOUBT") if taken else put(i, st="ACC", entry=a[3]),
                        )
                    elif a[2] == "exists":
                        go(f"{name[i]}: 'this reference exists'", ans=rest, rec=put(i, st="DOUBT"))
                    elif p.kind == "C0":
                        go(f"{name[i]}: refused", ans=rest, rec=put(i, st="HELD" if r.strict_c0 else "NEW"))
                    elif r.refusal == "each" or (r.refusal == "first" and w.free != 1):
                        go(
                            f"{name[i]}: refused, to be looked up",
                            ans=rest,
                            rec=put(i, st="SUSPECT" if w.free < 2 else "DOUBT", said=w.pos),
                            pos=w.pos + 1,
                        )
                    else:
                        go(f"{name[i]}: refused, again", ans=rest, rec=put(i, st="NEW"))
                if w.faults < p.faults:
                    go(
                        f"{name[i]}: no answer",
                        faults=w.faults + 1,
                        ans=frozenset(a for a in w.ans if a[0] != i),
                        rec=put(i, st="HELD" if p.kind == "C0" else "DOUBT"),
                    )
            elif each.st in ("DOUBT", "SUSPECT"):
                flying = any(q[0] == i for q in w.req)
                hidden_yet = any(e[0] == i for e in w.log[w.vis :])
                if not each.mark and not flying and not (p.lag == "honest" and hidden_yet):
                    go(f"D passes for {name[i]}", rec=put(i, mark=w.pos), pos=w.pos + 1)
                what, k = decide(w, p, r, i)
                free = {"adopt": 2, "again": 1}.get(what, 0) if each.st == "SUSPECT" else 0
                if what == "adopt" and k in claimed:
                    what = ""
                if what == "adopt":
                    go(f"{name[i]}: adopts T{k}", rec=put(i, st="ACC", entry=k), free=max(w.free, free))
                elif what == "again":
                    go(f"{name[i]}: believed absent", rec=put(i, st="NEW", mark=0, said=0), free=max(w.free, free))
                elif at_rest and each.mark and not any(o.st in ("NEW", "SENT") for o in w.rec):  # noqa: SIM102
                    if not any(decide(w, p, r, j)[0] for j, o in enumerate(w.rec) if o.st in ("DOUBT", "SUSPECT")):
                        go(f"{name[i]}: HELD", rec=put(i, st="HELD"))
        # --- the provider
        for i, n in w.req:
            rest = w.req - {(i, n)}
            hears = w.rec[i].st == "SENT" and w.rec[i].sends == n
            k = len(w.log)

            def answer(kind: str, entry: int = -1, *, i=i, n=n, hears=hears) -> frozenset:
                return w.ans | {(i, n, kind, entry)} if hears else w.ans

            if p.unique and any(e[0] == i for e in w.log):
                go(f"provider refuses {name[i]}#{n}: reference exists", req=rest, ans=answer("exists"))
            else:
                go(
                    f"provider accepts {name[i]}#{n} as T{k}",
                    req=rest,
                    log=(*w.log, (i, w.pos)),
                    pos=w.pos + 1,
                    ans=answer("id", k),
                )
                if p.refuses and hears and w.faults < p.faults:
                    if p.charges:
                        go(
                            f"provider accepts {name[i]}#{n} as T{k} and says 'refused'",
                            req=rest,
                            faults=w.faults + 1,
                            log=(*w.log, (i, w.pos)),
                            pos=w.pos + 1,
                            ans=answer("refused"),
                        )
                    if p.charges != "always":
                        go(f"provider refuses {name[i]}#{n}", req=rest, faults=w.faults + 1, ans=answer("refused"))
            if not hears:
                go(f"request {name[i]}#{n} is lost", req=rest)
        if w.vis < len(w.log):
            owner = w.log[w.vis][0]
            ours = any(e.st == "ACC" and e.entry == w.vis for e in w.rec)
            lag = w.lag if not ours else 2 if p.lag == "const" else max(w.lag, 1)
            go(f"T{w.vis} ({owner if isinstance(owner, str) else name[owner]}) becomes visible", vis=w.vis + 1, lag=lag)
        if w.twin:
            go("a foreigner's task, alike", twin=w.twin - 1, log=(*w.log, (TWIN, w.pos)), pos=w.pos + 1)
        for i in w.ghost:
            go(
                f"the other life sends {name[i]}",
                ghost=tuple(j for j in w.ghost if j != i),
                log=w.log if p.unique and any(e[0] == i for e in w.log) else (*w.log, (i, w.pos)),
                pos=w.pos + 1,
            )
        # --- the machine
        running = any(e.st in ("SENT", "DOUBT", "NEW", "SUSPECT") for e in w.rec)
        if w.kills < p.kills and running and any(e.st == "SENT" for e in w.rec):
            go("KILL -9, restart", kills=w.kills + 1, ans=frozenset(), rec=restart(w.rec, p))
        if p.restore and w.snap is None and not w.put_back and any(e.st != "NEW" for e in w.rec):
            go("BACKUP", snap=(w.rec, w.lag, w.free, w.sent_ever))
        if w.snap is not None and (w.rec, w.sent_ever) != (w.snap[0], w.snap[3]):
            quiet = not w.req and w.vis == len(w.log)
            if p.restore == "fast" or quiet:
                out.append(("THE BACKUP IS PUT BACK", canonical(reads(back(w, p, r), p, r))))
        return out

    return step


def restart(rec: tuple, p: Provider) -> tuple:
    doubt = "HELD" if p.kind == "C0" else "DOUBT"
    return tuple(e._replace(st=doubt) if e.st == "SENT" else e for e in rec)


def back(w: World, p: Provider, r: Rules) -> World:
    """A run begins on an older state."""
    rec, lag, free, _ = w.snap
    ghost = tuple(i for i, e in enumerate(w.rec) if e.st == "NEW") if p.fork else ()
    rec = restart(rec, p)
    told = p.restore == "copy" or (r.outside and (p.fork or w.sent_ever > w.snap[3]))
    w = w._replace(rec=rec, lag=lag, free=free, ans=frozenset(), snap=None, put_back=True, ghost=ghost)
    if r.fence and told:  # exit 13: nothing is bought before a person has looked
        stop = ("NEW", "DOUBT", "SUSPECT") if r.freeze else ("NEW",)
        return w._replace(rec=tuple(e._replace(st="HELD") if e.st in stop else e for e in rec))
    if r.start and p.kind != "C0":
        known = {e.entry for e in rec if e.st == "ACC"} | ({0, 1} if p.prior else set())
        fresh = []
        for i, e in enumerate(rec):
            rows = [
                k for k in shown(w, p) if k not in known and alike(w, p, i, k) and not (r.seen_before and k < w.before)
            ]
            if e.st == "NEW" and rows:  # bought in a life that this state does not remember
                first = e.first or min(w.log[k][1] for k in rows)
                fresh.append(e._replace(st="DOUBT", first=first, sends=e.sends or 1))
            else:
                fresh.append(e)
        w = w._replace(rec=tuple(fresh))
    return w


def begin(p: Provider, r: Rules) -> World:
    log = (
        ([(PRIOR, 0), (PRIOR, 0)] if p.prior else [])
        + ([(TWIN, 0)] if p.old_twin else [])
        + ([(STRANGER, 0)] if p.stranger else [])
    )
    n = len(log)
    w = World(
        rec=(Rec(),) * p.tasks,
        log=tuple(log),
        vis=n,
        before=n,
        twin=p.twin,
        lag=1 if p.prior and p.lag != "const" else 0,
    )
    return reads(w, p, r)


def flaws(w: World, p: Provider, r: Rules) -> list:
    made = Counter(e[0] for e in w.log)
    found = []
    if any(made[i] > 1 for i in range(p.tasks)):
        found.append(TWICE)
    for i, e in enumerate(w.rec):
        if e.st == "ACC":
            owner = w.log[e.entry][0]
            if owner != i and (owner != TWIN or p.hidden or i != 0):
                found.append(FOREIGN)
    if ended(w):
        for i, e in enumerate(w.rec):
            if made[i] == 1 and e.st == "ACC" and w.log[e.entry][0] != i:
                k = next(k for k, entry in enumerate(w.log) if entry[0] == i)
                late = w._replace(vis=len(w.log))  # the closing reading comes after D
                if not (r.closing and p.lag == "honest" and k in shown(late, p) and alike(w, p, i, k)):
                    found.append(LOSS)
    return found


def ended(w: World) -> bool:
    return not w.req and not w.ghost and all(e.st in ("ACC", "HELD") for e in w.rec)


def view(w: World, p: Provider) -> tuple:
    """All that the client knows: its own records and what the list shows it."""
    rows = tuple(
        (
            k in own(w, p),
            tuple(alike(w, p, i, k) for i in range(p.tasks)),
            tuple(w.log[k][1] < e.first for e in w.rec) if p.times else (),
            tuple(w.log[k][1] > e.mark for e in w.rec) if k in own(w, p) else (),
        )
        for k in shown(w, p)
    )
    rec = tuple((e.st, e.sends, bool(e.mark), e.miss, e.entry >= 0) for e in w.rec)
    return p.kind, p.hidden, p.prior, rec, rows, w.lag, w.rows, w.free


class Result(NamedTuple):
    states: int
    traces: dict
    held: int  # most tasks held at one ending
    stuck: int
    ends: int
    holds: dict  # view at a hold -> (ever accepted, ever not accepted)


def explore(p: Provider, r: Rules, limit: int = 1_500_000, views: bool = False) -> Result:
    start = begin(p, r)
    step = moves(p, r)
    parent: dict = {start: None}
    queue, first, held, stuck, ends = deque([start]), {}, 0, 0, 0
    holds: dict = {}
    while queue:
        w = queue.popleft()
        for flaw in flaws(w, p, r):
            first.setdefault(flaw, w)
        if ended(w):
            ends += 1
            held = max(held, sum(e.st == "HELD" for e in w.rec))
        nxt = step(w)
        if views:
            made = Counter(e[0] for e in w.log)
            for i, e in enumerate(w.rec):
                if e.st in ("DOUBT", "SUSPECT") and e.mark:
                    key = (view(w, p), i)
                    lost = made[i] == 0
                    was = holds.get(key, (False, False, False))
                    hold = any(label == f"{'abc'[i]}: HELD" for label, _ in nxt)
                    holds[key] = (was[0] or not lost, was[1] or lost, was[2] or hold)
        if not nxt and not ended(w):
            stuck += 1
        if TWICE in flaws(w, p, r):
            continue
        for label, n in nxt:
            if n not in parent:
                parent[n] = (w, label)
                queue.append(n)
        if len(parent) > limit:
            raise SystemExit(f"too many states: {p}")

    def trace(w):
        labels = []
        while parent[w] is not None:
            w, label = parent[w]
            labels.append(label)
        return labels[::-1]

    return Result(len(parent), {k: trace(v) for k, v in first.items()}, held, stuck, ends, holds)


# ------------------------------------------------------------------------------------------------------------------
WIDE = {"tasks": 3, "faults": 1, "kills": 0}
NONE: frozenset = frozenset()
T, F, L, FL, TL = (
    frozenset({TWICE}),
    frozenset({FOREIGN}),
    frozenset({LOSS}),
    frozenset({FOREIGN, LOSS}),
    frozenset({TWICE, LOSS}),
)


class Row(NamedTuple):
    what: str
    provider: Provider
    today: frozenset
    new: frozenset = NONE  # what must be found; empty: must hold
    strict: frozenset = NONE
    limit: str = ""  # the sentence that the documentation owes for a row that does not hold


def world_of(kind: str = "C2", **more: Any) -> Provider:
    return Provider(kind=kind, **more)


def table() -> list:
    return [
        Row("C2 honest, calibrated", world_of(), NONE),
        Row("C2 honest, calibrated, 3 tasks", world_of(**WIDE), NONE),
        Row("C2 honest, first use, 3 tasks", world_of(prior=False, **WIDE), NONE),
        Row("C2 honest, first use, 2 tasks", world_of(prior=False), NONE),
        Row("C1 honest, calibrated", world_of("C1"), NONE),
        Row("C1 honest, times unreadable", world_of("C1", times=False), NONE),
        Row("C1 honest, hidden field, nobody else", world_of("C1", hidden=True), NONE),
        Row("C0 honest", world_of("C0"), NONE),
        Row("C2 honest, refuses now and then", world_of(refuses=True), NONE),
        Row("C0 honest, refuses now and then", world_of("C0", refuses=True), NONE),
        Row("C2 no echo of the reference", world_of(echo=False), T),
        Row("C2 no echo, first use", world_of(echo=False, prior=False), T),
        Row("C1 no echo of the fields", world_of("C1", echo=False), NONE),
        Row("C2 list later than D", world_of(lag="const"), T),
        Row("C1 list later than D", world_of("C1", lag="const"), T),
        Row("C2 list later than D, first use", world_of(lag="const", prior=False), T),
        Row(
            "C2 list becomes later than D",
            world_of(lag="grows"),
            T,
            T,
            NONE,
            "the lag grows fourfold within one run, at its end",
        ),
        Row("C2 list cut to the newest 1", world_of(cap=1), T),
        Row("C2 list cut to the newest 2, first use", world_of(cap=2, prior=False, **WIDE), T),
        Row("C2 list cut to the oldest 2", world_of(cap=2, keep="oldest"), T),
        Row("C2 list cut to the oldest 3", world_of(cap=3, keep="oldest"), T),
        Row("C2 list always empty", world_of(blank=True), T),
        Row("C2 list always empty, first use", world_of(blank=True, prior=False), T),
        Row("C2 every other row missing", world_of(holes=True), T),
        Row(
            "C2 the same, first use",
            world_of(holes=True, prior=False, **WIDE),
            T,
            T,
            T,
            "a list drops the one row in doubt and none of ours",
        ),
        Row("C1 hidden field, stranger known, twin comes", world_of("C1", stranger=True, twin=1, hidden=True), FL),
        Row(
            "C1 hidden field, the twin is the first stranger",
            world_of("C1", twin=1, hidden=True),
            FL,
            F,
            NONE,
            "a field is hidden, and the first stranger ever seen asks for the same within the window",
        ),
        Row("C1 the same request of a stranger comes", world_of("C1", twin=1), L),
        Row("C1 the same, stranger known", world_of("C1", twin=1, stranger=True), L),
        Row("C1 hidden field, old twin, times readable", world_of("C1", old_twin=True, hidden=True), NONE),
        Row("C1 hidden field, old twin, times unreadable", world_of("C1", old_twin=True, hidden=True, times=False), FL),
        Row("C1 hidden field, twin, times unreadable", world_of("C1", twin=1, hidden=True, times=False), FL),
        Row("C2 refusal after charge", world_of(refuses=True, charges="always", faults=2, kills=0), T),
        Row("C2 the same, 3 tasks", world_of(refuses=True, charges="always", tasks=3, faults=2, kills=0), T),
        Row("C1 refusal after charge, first use", world_of("C1", prior=False, refuses=True, charges="always"), T),
        Row(
            "C2 refusal after charge, now and then",
            world_of(refuses=True, charges="sometimes", faults=2, kills=0),
            T,
            T,
            NONE,
            "one and the same refusal is free first and paid for later",
        ),
        Row(
            "C0 refusal after charge",
            world_of("C0", refuses=True, charges="always"),
            T,
            T,
            NONE,
            "neither reference nor list nor balance: a documented refusal is believed",
        ),
        Row("C2 by reference: any answer to any question", world_of(ignores=True), FL),
        Row("C2 backup put back", world_of(restore="slow", kills=0), T),
        Row("C2 backup put back, duplicates refused", world_of(restore="slow", unique=True, kills=0), NONE),
        Row("C1 backup put back", world_of("C1", restore="slow", kills=0), T),
        Row("C0 backup put back as files", world_of("C0", restore="copy", kills=0), T),
        Row(
            "C0 backup put back as a disk image",
            world_of("C0", restore="slow", kills=0),
            T,
            T,
            NONE,
            "neither reference nor list, and the whole disk is yesterday's",
        ),
        Row(
            "C2 disk image within D of the last send",
            world_of(restore="fast", kills=0),
            T,
            T,
            NONE,
            "a disk image is put back within D of the last send",
        ),
        Row("C2 the same, duplicates refused", world_of(restore="fast", unique=True, kills=0), NONE),
        Row("C2 copied files, both go on", world_of(restore="copy", fork=True, kills=0), T),
        Row(
            "C2 cloned machine, both go on",
            world_of(restore="slow", fork=True, kills=0),
            T,
            T,
            NONE,
            "two clones of a running machine, and no lease outside of them",
        ),
        Row("C2 the same, duplicates refused", world_of(restore="slow", fork=True, unique=True, kills=0), NONE),
    ]


def mutants() -> list:
    return [
        ("E1 echo claimed, not measured", {"echo": False}, world_of(echo=False), T),
        ("E2 reach back not shown", {"back": False}, world_of(cap=2, prior=False, **WIDE), T),
        ("E2 row counts without an own row", {"anchor": False}, world_of(cap=2, prior=False, **WIDE), T),
        ("E3 own rows may be missing", {"complete": False}, world_of(holes=True), T),
        ("E4 freshness not shown", {"fresh": ""}, world_of(lag="const"), T),
        (
            "E4 witness after the send, not after D",
            {"fresh_after_d": False},
            world_of(lag="const", kills=0, tasks=3),
            T,
        ),
        ("E4 order of the list not looked at", {"order": False}, world_of(cap=2, keep="oldest", prior=True), T),
        ("E5 refusal believed", {"refusal": "trust"}, world_of(refuses=True, charges="always", faults=2, kills=0), T),
        (
            "E5 refusal believed against the list",
            {"agrees": False},
            world_of(echo=False, refuses=True, charges="always", faults=2, kills=0),
            T,
        ),
        (
            "E5 later task seen in part of the list",
            {"complete": False},
            world_of(holes=True, refuses=True, charges="always", tasks=3, faults=2, kills=0),
            T,
        ),
        ("E6 strangers do not matter", {"alone": ""}, world_of("C1", stranger=True, twin=1, hidden=True), F),
        ("E7 any candidate, at once", {"count": False, "closing": False}, world_of("C1", twin=1, stranger=True), L),
        (
            "E8 old rows are candidates",
            {"seen_before": False, "dated": False, "alone": ""},
            world_of("C1", old_twin=True, hidden=True, times=False),
            F,
        ),
        ("E8 undated rows are candidates", {"dated": False}, world_of("C1", twin=1, hidden=True, times=False), F),
        ("E9 no question that must be unknown", {"control": False}, world_of(ignores=True), F),
        ("E10 no reading at the start", {"start": False}, world_of(restore="slow", kills=0), T),
        ("E11 copied state goes on", {"fence": False}, world_of("C0", restore="copy", kills=0), T),
        (
            "E11 copied state sends again what is in doubt",
            {"freeze": False},
            world_of(restore="copy", fork=True, kills=0),
            T,
        ),
        ("E12 no closing reading", {"closing": False}, world_of("C1", twin=1), L),
    ]


def pairs() -> list:
    faults = {
        "no echo": {"echo": False},
        "later than D": {"lag": "const"},
        "newest 2": {"cap": 2},
        "oldest 2": {"cap": 2, "keep": "oldest"},
        "holes": {"holes": True},
        "no times": {"times": False},
        "refusal charges": {"refuses": True, "charges": "always"},
        "stranger's twin": {"stranger": True, "twin": 1, "hidden": True},
        "any answer": {"ignores": True},
        "first use": {"prior": False},
        "backup": {"restore": "slow"},
    }
    out = []
    for kind in ("C2", "C1"):
        for (a, x), (b, y) in combinations(faults.items(), 2):
            if set(x) & set(y) or (kind == "C1" and "ignores" in {**x, **y}):
                continue
            out.append((f"{kind} {a} + {b}", Provider(kind=kind, kills=0, **{**x, **y})))
    return out


def said(found: Any) -> str:
    return ", ".join(sorted(found)) or "-"


def main(argv: list | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Model-check the paid-submit protocol against providers that differ from their documentation."
    )
    parser.add_argument("--traces", action="store_true", help="shortest counter-examples")
    parser.add_argument("--pairs", action="store_true", help="every pair of adversities")
    parser.add_argument(
        "--needed", action="store_true", help="is every hold of an honest world one that no rule could avoid?"
    )
    args = parser.parse_args(argv)
    began, bad, traces, states = time.perf_counter(), [], [], 0

    def run(name: str, p: Provider, r: Rules, must: frozenset, column: str) -> Result:
        nonlocal states
        result = explore(p, r)
        states += result.states
        if set(result.traces) != set(must) or (result.stuck and not must):
            bad.append(f"{name} / {column}: {said(result.traces)}, stuck {result.stuck}, expected {said(must)}")
        traces.extend((f"{name} / {column}", flaw, labels) for flaw, labels in sorted(result.traces.items()))
        return result

    print(f"{'provider':50}{'today':30}{'evidence rules':28}{'strict':14}held at most: today/evidence/strict")
    for row in table():
        seen = [
            run(row.what, row.provider, r, must, c)
            for r, must, c in ((TODAY, row.today, "today"), (NEW, row.new, "evidence"), (STRICT, row.strict, "strict"))
        ]
        cells = [said(x.traces) for x in seen]
        print(
            f"{row.what:50}{cells[0]:30}{cells[1]:28}{cells[2]:14}{'/'.join(str(x.held) for x in seen):8}"
            + (row.limit and f"limit: {row.limit}"),
            flush=True,
        )
    print(f"\n{'mutant of the evidence rules':50}{'must be caught as':20}found")
    for name, change, p, must in mutants():
        result = explore(p, replace(NEW, **change))
        states += result.states
        ok = must <= set(result.traces)
        if not ok:
            bad.append(f"mutant survives: {name}")
        print(f"{name:50}{said(must):20}{said(result.traces):28}{'caught' if ok else 'SURVIVES'}", flush=True)
        traces.extend((f"mutant {name}", flaw, labels) for flaw, labels in sorted(result.traces.items()))
    if args.pairs:
        count = Counter()
        for name, p in pairs():
            for column, r in (("today", TODAY), ("evidence", NEW), ("strict", STRICT)):
                result = explore(p, r)
                states += result.states
                count[column, bool(result.traces)] += 1
                if result.traces and column != "today":
                    print(f"pair {name:40}{column:10}{said(result.traces)}", flush=True)
                    traces.extend(
                        (f"pair {name} / {column}", flaw, labels) for flaw, labels in sorted(result.traces.items())
                    )
        print(
            "pairs of adversities: "
            + "; ".join(
                f"{c}: {count[c, True]} of {count[c, True] + count[c, False]} fail"
                for c in ("today", "evidence", "strict")
            )
        )
    if args.needed:
        needed()
    if args.traces:
        print()
        for name, flaw, labels in traces:
            print(f"{name}: {flaw}: " + " > ".join(labels))
    print(
        f"\n{states} states, {time.perf_counter() - began:.0f} s: "
        + ("all as required" if not bad else "NOT AS REQUIRED\n  " + "\n  ".join(bad))
    )
    return 1 if bad else 0


def needed() -> None:
    """Holds of honest worlds against the views of all worlds: could any rule that sees no more have decided?"""
    merged: dict = {}
    worlds = {row.provider for row in table() if not row.provider.restore and row.provider.kind != "C0"}
    for more in (
        {"blank": True},
        {"cap": 1},
        {"cap": 2},
        {"holes": True},
        {"echo": False},
        {"lag": "grows"},
        {"cap": 1, "keep": "oldest"},
        {"cap": 2, "keep": "oldest"},
    ):
        worlds |= {world_of(prior=False, **more), world_of(prior=False, **WIDE, **more)}
    for world in sorted(worlds, key=repr):
        for key, (yes, no, _) in explore(world, NEW, views=True).holds.items():
            was = merged.get(key, (False, False))
            merged[key] = (was[0] or yes, was[1] or no)
    for row in table():
        if "honest" in row.what and row.provider.kind != "C0":
            holds = [key for key, (_, _, hold) in explore(row.provider, NEW, views=True).holds.items() if hold]
            open_ = sum(merged[key] == (True, True) for key in holds)
            print(
                f"needed: {row.what:45}{len(holds):5} views end in a hold, {open_} of them cannot be decided by a rule"
            )


if __name__ == "__main__":
    sys.exit(main())
