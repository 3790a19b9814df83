"""Providers of the sandbox, with its lies, in virtual time and behind the simulation's faults of delivery.

The sandbox decides what is accepted, and what a list shows. Here is only how requests get there.
"""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qsl, unquote, urlsplit

from runner.providers.requests import Reply
from runner.sandbox.chanjing import ChanjingApi
from runner.sandbox.charged_refusals import refusal
from runner.sandbox.faults import CHARGED, Faults
from runner.sandbox.kling import KlingApi
from runner.sandbox.ledger import Order
from runner.sandbox.messages import SandboxRequest
from runner.sandbox.state import SandboxState
from runner.sandbox.strangers import accept_strangers
from runner.sandbox.upload_host import UploadHost
from tests.simulation.faults import DAY
from tests.simulation.provider import EPOCH, Chanjing, Kling, Made, Sent

#: refusals that must have cost nothing before a client may believe the next one at once
FEWEST_FREE = 2
#: seconds within which a list whose lag was not measurable must show a task that was made under a refusal
_SHORTEST_BOUND = 4.0
_SUBMITS = {"kling": "/v1/images/generations", "chanjing": "/open/v1/ai_creation/task/submit"}


class _Lying:
    """Mixed into a provider of the simulation: its ledger and its answers are those of a sandbox."""

    def __init__(self, plan, now, note):
        honest = replace(plan.lies, faults=Faults(), seconds=plan.takes, token_life_s=1e9)
        self.state, self._moment = SandboxState(honest, self._sandbox_time), -3600.0
        self.state.url = "https://cdn.invalid"
        self._start()
        self._moment = None
        #: what is answered to a submit after the charge
        self._refusals = {}
        #: the ids of tasks whose submits were answered as throttled ones are
        self._throttled = set()
        #: when each id was first seen on a row
        self._claimed_at = {}
        self.life_began = 0.0
        super().__init__(plan, now, note)
        self.state.change({"faults": plan.lies.faults.to_dict()})

    def _make_prior(self):
        """Buy before the job, without faults."""
        for number in range(3):
            body = self.strange_body(number, same=False)
            reference = f"prior-{number}" if self.keeps_references else ""
            self._arrived(Sent(-3600.0, "prior", reference, body, _SUBMITS[self.kind]), -3600.0 + 10.0 * number)
        self.groups.clear()
        return list(self.made)

    def _make_unrelated(self):
        """Somebody else comes with the sandbox's faults."""

    def _sandbox_time(self):
        return EPOCH + (self.now() if self._moment is None else self._moment)

    async def _fare(self, client, sent, fault):
        if fault == "lost":
            self._submit(sent, self.now(), accept=False)  # ours is lost, and that of somebody else arrives
        return await super()._fare(client, sent, fault)

    def _arrived(self, sent, at):
        self._submit(sent, at, accept=True)

    def _submit(self, sent, at, *, accept):
        body = sent.body | ({self.reference_field: sent.reference} if sent.reference else {})
        self._moment = at
        try:
            outcome = self._ask("POST", sent.path, body)
            if isinstance(outcome, Order):
                accept_strangers(self.state, outcome)
                self._file_foreign(at)
            if accept and isinstance(outcome, Order):
                task = self.state.accept(outcome)
                self._file_own(sent, task, at)
                if (charged := self.state.fault_injector.next_fault(CHARGED)) is not None:
                    response = refusal(self.kind, charged)
                    self._refusals[task.id] = Reply(response.status, json.loads(response.body), {})
                    self._throttled |= {task.id} if charged == "refuse_after_charge" else set()
            elif accept:
                self._answered(sent, json.loads(outcome.body))
        finally:
            self._moment = None

    def _file_foreign(self, at):
        for task in self.state.ledger.accepted[len(self.made) :]:
            made = Made(task.id, task.number, None, f"foreign {task.key}", "", task.request, "", at, at, at, "made")
            self._file(made)
            self.note("a stranger's", task.id, f"{at:.3f}")

    def _file_own(self, sent, task, at):
        echo = bool(sent.made)
        made = Made(
            task.id, task.number, sent, sent.group, sent.reference, sent.body, sent.path, at, at, at, "made", echo
        )
        sent.made.append(made)
        self._file(made)
        self.note("accepted", made.group[:40], made.id, f"{at:.3f}")

    def _answered(self, sent, body):
        """Take an answer to a submit that nothing was accepted for: a refusal, or the first task of its reference."""
        id_ = body.get("data") and body["data"].get("task_id")
        if id_ is None:
            sent.refused = True
        else:
            sent.made.append(self.by_id(str(id_)))
        self.note("not accepted", sent.group, id_)

    def by_id(self, id_):
        task = self.state.lists.find(id_)
        return task and super().by_id(task.id)

    def saw_claims(self, claimed):
        """Remember when each id was first seen on a row."""
        for id_ in claimed:
            self._claimed_at.setdefault(id_, self.now())

    def may_be_taken(self, made, group, adopted):
        """Return True for a task that nothing could tell from one of the group.

        Without references that is somebody else's very same request. And where rows show the mark of their neighbour:
        a row of which no own row tells that, or if that neighbour's request is the same. The first row of a list has no
        neighbour and shows its own mark, so that it tells nothing.
        """
        is_foreign, faults = made.group.startswith("foreign"), self.plan.lies.faults.plans
        if is_foreign and not self.keeps_references and self.group_of(made.body) == group:
            return True
        if "echo_wrong" not in faults:
            return False
        is_own = self._claimed_at.keys() - adopted() | {each.id for each in self.prior}
        is_measured = any(task.id in is_own and task.number > 1 for task in self._shown(made))
        return not is_measured or ("twin_equal" in faults and not self.keeps_references)

    def _shown(self, made):
        """Return every row of the list that holds a task."""
        task = self.state.ledger.by_id(made.id)
        pages = (self.state.lists.page(task.provider, task.account, task.operation, n, 500)[0] for n in range(1, 100))
        before = None
        for page in pages:
            if not page or page == before:
                return
            yield from page
            before = page

    def may_look_absent(self, made, adopted):
        """Return True for a task that a list showed too late, or never, though each own task was in time before.

        A list that was in time when it was last measured, before this job, on tasks of the account: before the task was
        sent again no other of this process had an id, and none of earlier ones was missing since it began. After a
        refusal four seconds are in time then. Or a list that leaves out every other row, and every own row of a day was
        one that it shows. Or a refusal that had cost nothing twice before; or one at the first use of an account, whose
        list had no own task by which it could be seen to be late.
        """
        is_free = [sent for sent in self.sents if sent.clear and not sent.made and sent.at < made.at]
        if made.id in self._throttled and len(is_free) >= FEWEST_FREE:
            return True
        again = min((sent.at for sent in self.sents_by_group[made.group] if sent.at > made.at), default=self.now())
        task, lies = self.state.ledger.by_id(made.id), self.plan.lies
        lag = self.state.lists.shown_from(task) - EPOCH - made.at
        late = lag > self.plan.doubt
        late_as_measured = lag > (_SHORTEST_BOUND if made.id in self._refusals else self.plan.doubt)
        since, own = made.at - self.plan.doubt, self._claimed_at.keys() - adopted()
        is_watched = self.plan.prior or any(since < self._claimed_at[id_] < again for id_ in own)
        if made.id in self._refusals and late and not is_watched:
            return True
        known = [self.state.ledger.by_id(id_).number for id_, at in self._claimed_at.items() if at < again]
        is_cut = lies.list_oldest is not None and task.number > lies.list_oldest
        if self.plan.prior and (late_as_measured or is_cut) and not self._is_seen_late(again, late=late_as_measured):
            return True
        is_old = any(life.wall_jump > DAY - 3600.0 for life in self.plan.lives)
        shown = "list_holes" in lies.faults.plans and (is_old or not self.plan.prior)
        return shown and task.number % 2 == 0 and all(number % 2 for number in known)

    def _is_seen_late(self, until, *, late):
        """Return True if an own task had an id before a time that shows this process how late the list is."""
        begun = self.life_began if late else 0.0
        ids = [id_ for id_, at in self._claimed_at.items() if at < until]
        shown_from = {id_: self.state.lists.shown_from(self.state.ledger.by_id(id_)) - EPOCH for id_ in ids}
        return any(self._claimed_at[id_] > begun or shown_from[id_] > begun for id_ in ids)

    def accepted(self, id_):
        if isinstance(id_, str) and id_ in self._refusals:
            return self._refusals[id_]
        known = isinstance(id_, str) and self.state.ledger.by_id(id_)
        return super().accepted(self.state.wire_id(id_) if known else id_)

    def handle(self, request, fault):
        url = urlsplit(request.path)
        is_list = bool(url.query) or (isinstance(request.body, dict) and "unique_ids" not in request.body)
        if fault == "gone" and request.phase == "query" and not is_list:
            return self.refusal("absent" if self.kind == "kling" else "unknown_code")
        response = self._ask(request.method, request.path, request.body)
        return Reply(response.status, json.loads(response.body), dict(response.headers))

    def _ask(self, method, path, body):
        url = urlsplit(path)
        content = b"" if body is None else json.dumps(body).encode()
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        return self.api.handle(SandboxRequest(method, unquote(url.path), query, self._headers, content))


class LyingKling(_Lying, Kling):
    """Kling as the sandbox plays it."""

    def _start(self):
        self.api = KlingApi(self.state)
        self._headers = {"authorization": "Bearer key"}

    def strange_body(self, number, *, same):
        return {"model_name": "kling-v2-1", "prompt": f"unrelated {number}"}


class LyingChanjing(_Lying, Chanjing):
    """Chanjing as the sandbox plays it."""

    def _start(self):
        self.api = ChanjingApi(self.state, UploadHost(self.state))
        token, _ = self.api._tokens.issue("app")
        self._headers = {"access_token": token}


LYING_PROVIDERS = {"kling": LyingKling, "chanjing": LyingChanjing}
