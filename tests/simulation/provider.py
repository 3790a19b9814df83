"""Providers in virtual time that answer real requests with real bodies, and with the faults of a seed.

The ledger outlives the client: a sent request arrives, or not, even if the client has ended before the response.
Arrivals are processed lazily, so a provider needs no loop of its own.
"""

from __future__ import annotations

import heapq
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qs, unquote, urlsplit

from runner.providers.requests import NoAnswer, NotSent, Reply

#: what the world calls the second 0 of virtual time
EPOCH = 1_700_000_000.0
#: the gateway's own deadlines: for one request, and for the silence within it
DEADLINE, SILENCE = 60.0, 30.0
#: the share of D within which what was sent is accepted and visible (A3, A4)
WITHIN = 0.95


@dataclass(eq=False)
class Sent:
    """One submit that was sent."""

    at: float
    #: who is known again by the provider: the reference, or the request where there is none
    group: str
    reference: str
    body: dict
    path: str
    #: the client got a clear response about it
    clear: bool = False
    made: list[Made] = field(default_factory=list)
    refused: bool = False


@dataclass(eq=False)
class Made:
    """One task that was accepted and is therefore paid."""

    id: str
    number: int
    sent: Sent | None
    group: str
    reference: str
    body: dict
    path: str
    at: float
    visible_at: float
    ready_at: float
    fate: str
    #: a second task from one delivery: the provider's fault, and only its
    echo: bool = False
    skipped: bool = False
    polls: int = 0


class Provider:
    """Base of the three providers. `now` is the true time. If `spared`, no more faults occur."""

    kind = ""
    keeps_references = False
    can_list = True

    def __init__(self, plan, now, note):
        self.plan, self.now, self.note = plan, now, note
        self.dice = random.Random(f"provider {plan.seed}")
        self.sents: list[Sent] = []
        self.made: list[Made] = []
        self._by_id: dict[str, Made] = {}
        self._by_reference: dict[str, list[Made]] = {}
        self.groups: defaultdict[str, list[Made]] = defaultdict(list)
        self.sents_by_group: defaultdict[str, list[Sent]] = defaultdict(list)
        self._pending: list[tuple[float, int, Sent]] = []
        self._serial = 0
        #: requests by phase, by whether there was an outage, by whether they were answered properly
        self.requests: Counter[tuple[str, bool, bool]] = Counter()
        self.on_wire: Counter[str] = Counter()
        self.last_outage_submit = 0.0
        self.prior = self._make_prior() if plan.prior else []
        self._make_unrelated()

    # time and trouble

    @property
    def healed(self):
        return self.plan.heals is not None and self.now() >= self.plan.heals

    def _outage(self):
        if self.healed:
            return None
        return next((span.manner for span in self.plan.outages if span.covers(self.now())), None)

    def _storm(self):
        if self.healed:
            return None
        return next((span.manner for span in self.plan.storms if span.covers(self.now())), None)

    def _rolled(self, rates):
        """Draw at most one of these faults."""
        if self.healed:
            return None
        roll = self.dice.random()
        for name, rate in rates.items():
            roll -= rate
            if roll < 0:
                return name
        return None

    def advance(self):
        """Process everything that has arrived by now."""
        while self._pending and self._pending[0][0] <= self.now():
            at, _, sent = heapq.heappop(self._pending)
            self._arrived(sent, at)

    def _arrives(self, sent, delay):
        self._serial += 1
        heapq.heappush(self._pending, (self.now() + delay, self._serial, sent))

    def _arrived(self, sent, at):
        taken = self._by_reference.get(sent.reference) if sent.reference else None
        if taken and self.plan.dedupes:
            sent.refused = True
            self.note("deduped", sent.group)
            return
        self._accept(sent, at, echo=bool(sent.made))

    def _accept(self, sent, at, *, echo):
        low, high = self.plan.takes
        made = Made(
            id=self._new_id(),
            number=len(self.made),
            sent=sent,
            group=sent.group,
            reference=sent.reference,
            body=sent.body,
            path=sent.path,
            at=at,
            visible_at=self._visible_at(sent, at),
            ready_at=at + self.dice.uniform(low, high),
            fate=self._rolled(self.plan.fates) or "made",
            echo=echo,
        )
        sent.made.append(made)
        self._file(made)
        self.note("accepted", made.group[:40], made.id, f"{at:.3f}", made.fate)

    def _file(self, made):
        self.made.append(made)
        self._by_id[made.id] = made
        if made.reference:
            self._by_reference.setdefault(made.reference, []).append(made)
        if made.sent is not None:
            self.groups[made.group].append(made)

    def _visible_at(self, sent, at):
        if self.plan.hides and not self.healed:
            return at + self.dice.uniform(0.0, 3.0) * self.plan.doubt
        lag = self.plan.lag * self.plan.doubt * self.dice.random()
        return max(at, min(at + lag, sent.at + WITHIN * self.plan.doubt))

    def _make_prior(self):
        """Add tasks that another job of the account has bought an hour ago."""
        for number in range(3):
            at, body = -3600.0 + 10.0 * number, self.strange_body(number, same=False)
            reference = f"prior-{number}" if self.keeps_references else ""
            self._file(
                Made(self._new_id(), number, None, "prior", reference, body, self.unrelated_path(), at, at, at, "made")
            )
        return list(self.made)

    def _make_unrelated(self):
        """Add unrelated tasks of the account: other requests of these days, and equal requests of another week."""
        for number in range(self.plan.unrelated):
            at = self.dice.uniform(-4000.0, 600.0)
            body = self.strange_body(number, same=False)
            if number % 5 == 0 and self.kind == "chanjing":
                at, body = -7 * 86_400.0 + number, self.strange_body(number, same=True)
            self._file(
                Made(
                    self._new_id(),
                    len(self.made),
                    None,
                    "unrelated",
                    "",
                    body,
                    self.unrelated_path(),
                    at,
                    at,
                    at,
                    "made",
                )
            )

    # the port

    async def send(self, client, request, permit):
        """Send one request and return its outcome. The only exception is the end of the client."""
        client.gate()
        submit = request.phase == "submit"
        if not submit:
            client.reach_failpoint("query leaving")
        outage, began = self._outage() is not None, self.now()
        outcome = await (self._submitted(client, request, permit) if submit else self._asked(client, request, permit))
        client.gate()
        proper = isinstance(outcome, Reply) and outcome.status < 500 and not isinstance(outcome.body, str)
        self.requests[request.phase, outage, proper] += 1
        self.note("reply", request.phase, request.path, f"{began:.3f}", _brief(outcome))
        if isinstance(outcome, Reply):
            date = formatdate(EPOCH + self.now(), usegmt=True)
            outcome = Reply(outcome.status, outcome.body, {**outcome.headers, "date": date})
        if permit is not None and isinstance(outcome, Reply):
            permit.answered(self.now() - began)
        return outcome

    async def _submitted(self, client, request, permit):
        fault = self._submit_fault()
        if fault in {"not_sent", "refused"}:
            await client.sleep(self.dice.uniform(0.01, 3.0))
            return NotSent("connection refused")
        body = dict(request.body)
        reference = body.pop(self.reference_field, "") if self.keeps_references else ""
        sent = Sent(self.now(), reference or self.group_of(body), reference, body, request.path)
        client.submit_leaves(sent)
        if permit is not None:
            permit.sent(self.now())
        self.sents.append(sent)
        self.sents_by_group[sent.group].append(sent)
        self.note("leaves", sent.group[:40], fault)
        self.on_wire[sent.group] += 1
        client.on_wire.append(sent)
        try:
            outcome = await self._fare(client, sent, fault)
        finally:
            if sent in client.on_wire:
                client.on_wire.remove(sent)
                self.on_wire[sent.group] -= 1
        return outcome

    def _submit_fault(self):
        outage, storm = self._outage(), self._storm()
        if outage is not None:
            return {"refused": "refused", "silent": "silence", "5xx": "status_5xx_lost"}[outage]
        if storm is not None and self.dice.random() < 0.6:
            return {"throttled": "throttled", "5xx": "status_5xx"}[storm]
        return self.plan.script.get(len(self.sents) + 1) or self._rolled(self.plan.submit)

    async def _fare(self, client, sent, fault):
        dice, transit = self.dice, self.dice.uniform(0.01, 0.3)
        coin = dice.random() < 0.5
        soon = transit + dice.uniform(0.01, 0.5)
        match fault:
            case "lost" | "silence":
                await client.sleep(SILENCE if coin or fault == "silence" else soon)
                return NoAnswer("ReadError")
            case "late":
                self._arrives(sent, WITHIN * self.plan.doubt * dice.random() ** (1 / 3))
                client.reach_failpoint("request left")
                await client.sleep(DEADLINE if coin else soon)
                return NoAnswer("no answer within 60 s")
            case "status_5xx" | "status_5xx_lost" | "unknown_code" | "not_json":
                if coin and fault != "status_5xx_lost":
                    self._arrives(sent, transit)
                client.reach_failpoint("request left")
                await client.sleep(soon)
                self.advance()
                return self._unclear(fault)
            case "throttled" if self.plan.charges:
                self._arrives(sent, transit)
                client.reach_failpoint("request left")
                await client.sleep(max(soon, transit))
                self.advance()
                return self.refusal("throttled")
            case "throttled" | "window" | "moderated" | "invalid" | "no_money":
                client.reach_failpoint("request left")
                await client.sleep(soon)
                if self.plan.dedupes and self._by_reference.get(sent.reference):
                    return self.refusal("taken")  # it checks the reference before anything else
                sent.clear = True
                return self.refusal(fault)
            case _:
                self._arrives(sent, transit)
                if fault == "twice":
                    self._arrives(sent, transit + dice.uniform(0.0, 5.0))
                client.reach_failpoint("request left")
                await client.sleep(dice.uniform(3.0, self.plan.slowest) if fault == "slow_answer" else soon)
                if fault == "answer_lost" or (fault == "twice" and coin):
                    await client.sleep(0.0 if dice.random() < 0.5 else DEADLINE - 1)
                    return NoAnswer("RemoteProtocolError")
                self.advance()
                if fault == "no_id":
                    return self.accepted(dice.choice(("", None, {"x": 1}, "x" * 1200, "../x", True)))
                if sent.refused and not sent.made:
                    return self.refusal("taken")
                sent.clear = True
                return self.accepted(sent.made[0].id)

    def _unclear(self, fault):
        match fault:
            case "unknown_code":
                return self.refusal("unknown_code")
            case "not_json":
                return Reply(200, "<html>sign in</html>", {})
            case _:
                status = self.dice.choice((500, 502, 503, 504))
                return Reply(status, self.dice.choice(("upstream error", {"message": "busy"})), {})

    async def _asked(self, client, request, permit):
        outage, storm = self._outage(), self._storm()
        if permit is not None:
            permit.sent(self.now())
        fault = self._rolled(self.plan.query)
        if storm is not None and self.dice.random() < 0.6:
            fault = {"throttled": "throttled", "5xx": "status_5xx"}[storm]
        if outage is not None:
            fault = {"refused": "not_sent", "silent": "no_answer", "5xx": "status_5xx"}[outage]
        if fault == "no_answer":
            await client.sleep(SILENCE if outage or self.dice.random() < 0.3 else 0.1)
            return NoAnswer("ReadTimeout")
        await client.sleep(self.dice.uniform(2.0, 50.0) if fault == "slow" else self.dice.uniform(0.02, 0.3))
        match fault:
            case "not_sent":
                return NotSent("ConnectError")
            case "status_5xx":
                return self._unclear(fault)
            case "not_json":
                return Reply(200, "<html>sign in</html>", {})
            case "throttled":
                return self.refusal("throttled")
            case _:
                self.advance()
                # through JSON, as it would come
                reply = self.handle(request, fault)
                return Reply(reply.status, json.loads(json.dumps(reply.body)), reply.headers)

    # what lists and polls share

    def rows(self, keep, page):
        """Return one page of the tasks that are visible now."""
        seen = [made for made in self.made if made.visible_at <= self.now() and made.at <= self.now() and keep(made)]
        seen.sort(key=lambda made: (-made.at, -made.number) if self.plan.ordered else (made.id[-4:], made.number))
        size = self.plan.page_size
        return [made for made in seen[(page - 1) * size : page * size] if not self._skips(made)]

    def _skips(self, made):
        """Return how many rows to skip. Rows shift while pages are read, so one reading can miss a row."""
        if not self.plan.skips or made.skipped or made.sent is None or made.sent.clear:
            return False
        made.skipped = True
        return True

    def word(self, made, fault):
        """Return queued, running, succeeded or failed."""
        made.polls += 1
        if fault == "unknown":
            return "unknown"
        if made.fate == "stuck" or self.now() < made.ready_at:
            return "running" if self.now() > made.at + 1 else "queued"
        return "failed" if made.fate in {"failed", "moderated"} else "succeeded"

    def links(self, made):
        ordered = made.body.get(self.count_field, 1)
        count = {"empty": 0, "short": ordered - 1}.get(made.fate, ordered)
        return [f"https://cdn.invalid/{made.id}/{number}?v={made.polls}" for number in range(1, count + 1)]

    def by_id(self, id_):
        return self._by_id.get(id_)

    # documented limits: what no client can know

    def saw_claims(self, claimed):
        """Remember which ids rows have."""

    def may_be_taken(self, made, group, adopted):
        """Return True if nothing could tell the task from one of the group. `adopted()` are ids that were found."""
        return False

    def may_look_absent(self, made, adopted):
        """Return True if nothing could tell that the task was accepted."""
        return False

    def by_reference(self, reference):
        seen = [made for made in self._by_reference.get(reference, ()) if made.visible_at <= self.now()]
        return self.dice.choice(seen) if seen else None

    def group_of(self, body):
        return json.dumps(body, sort_keys=True)

    def _new_id(self):
        return f"{self.dice.getrandbits(64):016x}"

    def retry_after(self):
        value = self.dice.choice((None, None, "3", "0", "-1", "99999", "1e9"))
        return {} if value is None else {"retry-after": value}

    # per dialect
    count_field = "n"
    reference_field = ""

    def handle(self, request, fault):
        raise NotImplementedError

    def accepted(self, id_):
        raise NotImplementedError

    def refusal(self, why):
        raise NotImplementedError

    def strange_body(self, number, *, same):
        raise NotImplementedError

    def unrelated_path(self):
        raise NotImplementedError


_KLING_CODES = {
    "throttled": (429, 1302),
    "window": (429, 1303),
    "moderated": (400, 1301),
    "invalid": (400, 1200),
    "taken": (400, 1201),
    "no_money": (429, 1102),
    "unknown_code": (200, 99_999),
    "absent": (404, 1203),
}


class Kling(Provider):
    """A provider whose tasks are found by reference, or in a list that shows it."""

    kind = "kling"
    keeps_references = True
    reference_field = "external_task_id"

    def _new_id(self):
        return str(self.dice.getrandbits(60))

    def handle(self, request, fault):
        url = urlsplit(request.path)
        if url.query:
            page = int(parse_qs(url.query)["pageNum"][0])
            return _kling(data=[self._shown(made, None) for made in self.rows(lambda m: m.path == url.path, page)])
        name = unquote(url.path.rpartition("/")[2])
        made = self.by_id(name) or self.by_reference(name)
        if made is None or (fault == "gone" and made.id == name):
            return self.refusal("absent")
        return _kling(data=self._shown(made, fault))

    def _shown(self, made, fault):
        word = self.word(made, fault)
        words = {"queued": "submitted", "running": "processing", "succeeded": "succeed"}
        shown = {
            "task_id": made.id,
            "task_status": words.get(word, word),
            "task_status_msg": "risk control" if made.fate == "moderated" else "",
            "task_info": {"external_task_id": made.reference},
            "created_at": int((EPOCH + made.at) * 1000),
        }
        if word == "succeeded":
            shown["task_result"] = {"images": [{"index": n, "url": url} for n, url in enumerate(self.links(made))]}
        return shown

    def accepted(self, id_):
        return _kling(data={"task_id": id_, "task_status": "submitted"})

    def refusal(self, why):
        status, code = _KLING_CODES[why]
        headers = self.retry_after() if why == "throttled" else {}
        return Reply(status, {"code": code, "message": why, "request_id": "x"}, headers)

    def strange_body(self, number, *, same):
        return {"prompt": f"unrelated {number}"}

    def unrelated_path(self):
        return "/v1/images/generations"


def _kling(data):
    return Reply(200, {"code": 0, "message": "SUCCEED", "request_id": "x", "data": data}, {})


_CHANJING_CODES = {
    "throttled": (40001, "超出 QPS 限制"),
    "window": (40001, "超出 QPS 限制"),
    "moderated": (50000, "内容审核未通过，违规"),
    "invalid": (40000, "参数错误"),
    "no_money": (50000, "扣费失败，蝉豆余额不足"),
    "unknown_code": (50000, "系统繁忙"),
}


class Chanjing(Provider):
    """A provider whose tasks are found only by the request fields in a list."""

    kind = "chanjing"
    count_field = "number_of_images"

    def handle(self, request, fault):
        body = request.body
        ids = body.get("unique_ids")
        if ids is None:
            found = self.rows(lambda made: True, body["page"])
        else:
            found = [made for made in map(self.by_id, ids) if made is not None]
            if fault == "gone":
                found = found[1:]
        return _chanjing({"list": [self._row(made, fault if ids else None) for made in found], "total": 3})

    def _row(self, made, fault):
        word = self.word(made, fault)
        words = {"queued": "Queued", "running": "Generating", "succeeded": "Success", "failed": "Error"}
        prompt = made.body["ref_prompt"]
        photo = {
            "ref_prompt": prompt.strip() if self.plan.trims else prompt,
            "aspect_ratio": made.body.get("aspect_ratio", ""),
            "number_of_images": made.body.get("number_of_images", 1),
            "clarity": 0,
        }
        return {
            "id": made.number,
            "unique_id": made.id,
            "create_time": int(EPOCH + made.at),
            "type": made.body["creation_type"],
            "model_code": made.body["model_code"],
            "progress_desc": words.get(word, word),
            "err_msg": "审核未通过" if made.fate == "moderated" else "",
            "output_url": self.links(made) if word == "succeeded" else [],
            "photo_info": photo,
            "motion_info": {},
        }

    def accepted(self, id_):
        return _chanjing(id_)

    def refusal(self, why):
        code, text = _CHANJING_CODES[why]
        return Reply(200, {"trace_id": "x", "code": code, "msg": text, "data": None}, {})

    def strange_body(self, number, *, same):
        from tests.simulation.world import chanjing_request  # noqa: PLC0415 - its tasks are the world's

        prompt = number % self.plan.prompts if same else f"unrelated {number}"
        return {"creation_type": 3, "model_code": "kling-v2-1", **chanjing_request(prompt)}

    def unrelated_path(self):
        return ""


def _chanjing(data):
    return Reply(200, {"trace_id": "x", "code": 0, "msg": "success", "data": data}, {})


class KlingGateway(Kling):
    """A provider without any query that could find a submit without response."""

    kind = "kling-gateway"
    keeps_references = False
    can_list = False

    def handle(self, request, fault):
        made = self.by_id(re.sub(".*/", "", request.path))
        if made is None or fault == "gone":
            return Reply(400, {"code": "task_not_exist", "message": "task_not_exist"}, {})
        return _kling(data=self._shown(made, fault))

    def refusal(self, why):
        if why == "unknown_code":
            return Reply(400, {"code": "bad_response_status_code", "message": "?"}, {})
        return super().refusal(why)


PROVIDERS = {each.kind: each for each in (Kling, Chanjing, KlingGateway)}


def _brief(outcome):
    match outcome:
        case Reply(status, body):
            code = body.get("code") if isinstance(body, dict) else "text"
            return f"{status} {code}"
        case _:
            return repr(outcome)
