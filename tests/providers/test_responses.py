from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.providers.requests import NoAnswer, NotSent, Reply
from runner.providers.responses import (
    ListPage,
    compare_echo,
    read_many,
    read_page,
    read_query,
    read_reference,
    read_submit,
)
from runner.providers.spec import load
from runner.tasks.events import (
    Accepted,
    AccountBlocked,
    Finished,
    Found,
    Interrupted,
    Pending,
    Rejected,
    RetryableFailure,
)
from runner.tasks.remote_ids import parse_remote_id

SPECS = [load(name) for name in ("chanjing", "kling", "kling-gateway")]


def describe(event) -> dict:
    """Return an event, or a page of a list, in the form of the recorded responses."""
    match event:
        case None:
            return {"event": "nothing"}
        case ListPage(rows):
            return {"rows": [[row.remote_id, row.reference, row.created] for row in rows]}
        case Accepted(remote_id):
            return {"event": "Accepted", "remote_id": remote_id}
        case Found(remote_id):
            return {"event": "Found", "remote_id": remote_id}
        case Interrupted(_, hopeless):
            return {"event": "Interrupted", "hopeless": hopeless}
        case Pending(word, settling, strange, trace):
            return {"event": "Pending", "word": word, "settling": settling, "strange": strange, "trace": trace}
        case Finished(outputs):
            return {"event": "Finished", "urls": [output.url for output in outputs]}
        case RetryableFailure(kind, error, wait):
            return {"event": "Setback", "kind": kind, "why": error.reason, "message": error.message, "wait": wait}
        case AccountBlocked(kind, error):
            return {"event": "Blocked", "kind": kind, "why": error.reason, "message": error.message}
        case Rejected(error, maybe_taken, billed):
            flags = {"maybe_taken": maybe_taken, "billed": billed}
            return {"event": "Refused", "why": error.reason, "message": error.message, **flags}


def check_recorded(event, expected):
    described = describe(event)
    assert {name: described.get(name) for name in expected} == expected


def test_recorded_submit_responses(spec, submit_reply, expected):
    check_recorded(read_submit(spec, submit_reply), expected)


def test_recorded_query_responses(spec, query_reply, expected):
    check_recorded(read_query(spec, query_reply), expected)


def test_recorded_list_pages(spec, page_reply, expected):
    check_recorded(read_page(spec, page_reply), expected)


def test_recorded_responses_by_reference(spec, reference_reply, expected, task):
    check_recorded(read_reference(spec, task(), reference_reply), expected)


# no response at all


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_unsent_request_is_retried_or_blocks(spec, task):
    """A request that was not sent is tried again, but a wrong address blocks the account."""
    for read in (read_submit, read_query, read_page):
        event = read(spec, NotSent("refused"))
        assert (type(event), event.kind) == (RetryableFailure, "unsent")
        event = read(spec, NotSent("bad certificate", terminal=True))
        assert (type(event), event.kind) == (AccountBlocked, "configuration")
    assert read_reference(spec, task(), NotSent("refused")).kind == "unsent"


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_missing_response_is_doubt_or_trouble(spec, task):
    """On a submit it is a doubt, on a query it is trouble."""
    no_answer = NoAnswer("cut off; body so far: {\x1b[31m\ud800")
    event = read_submit(spec, no_answer)
    assert isinstance(event, Interrupted)
    assert event.reason.encode("utf-8").decode().isprintable()
    assert read_query(spec, no_answer).kind == "trouble"
    assert read_page(spec, no_answer).kind == "trouble"
    assert read_reference(spec, task(), no_answer).kind == "trouble"
    assert set(read_many(SPECS[0], [task()], no_answer)[0]) == {1}


# batched queries


def page_of(*items, code=0):
    return Reply(200, {"code": code, "msg": "success", "data": {"list": list(items)}})


def test_batch_response_covers_only_the_tasks_it_names(task):
    chanjing = SPECS[0]
    asked = [task("chanjing", remote_id=id_) for id_ in ("u-1", "u-2", "u-3")]
    asked = [replace(each, id=number) for number, each in enumerate(asked, 1)]
    answer = page_of(
        {"unique_id": "u-1", "progress_desc": "Success", "output_url": ["https://files.example/1.png"]},
        {"unique_id": "u-3", "progress_desc": "Queued"},
        {"unique_id": "unrelated", "progress_desc": "Fail"},
        {"progress_desc": "Fail"},
        None,
        "u-2",
    )
    events, objects = read_many(chanjing, asked, answer)
    assert {id_: type(event) for id_, event in events.items()} == {1: Finished, 2: RetryableFailure, 3: Pending}
    assert events[2].kind == "absent", "being left out proves nothing"
    assert set(objects) == {1, 3}
    assert objects[3]["progress_desc"] == "Queued"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (page_of(), "absent"),
        (Reply(200, {"code": 40001, "msg": "slow down", "data": None}), "throttled"),
        (Reply(200, {"code": 10400, "msg": "gone"}), "credentials"),
        (Reply(502, "<html></html>"), "trouble"),
        (Reply(200, {"code": 0, "data": {"list": {}}}), "trouble"),
        (NotSent("refused"), "unsent"),
    ],
    ids=str,
)
def test_batch_without_a_list_fails_no_task(task, answer, kind):
    """Every task of the batch gets the same event."""
    events, objects = read_many(SPECS[0], [task("chanjing")], answer)
    assert [event.kind for event in events.values()] == [kind]
    assert objects == {}


def test_batch_response_without_batches_in_the_spec(task):
    events, _ = read_many(SPECS[1], [task()], page_of({"unique_id": "u-1", "progress_desc": "Success"}))
    assert events[1].kind == "trouble"


# echoes


def test_echo_is_compared_field_by_field():
    body = {
        "model_code": "kling-v2-1",
        "creation_type": 3,
        "ref_prompt": " a boat ",
        "clarity": 1024,
        "start_frame": "x",
    }
    row = {
        "type": 3,
        "model_code": "kling-v2-1",
        "photo_info": {"ref_prompt": "a boat", "clarity": 1024},
        "motion_info": {"ref_prompt": "", "clarity": 0},
    }
    seen = compare_echo(SPECS[0], body, row)
    assert seen == {"model_code": True, "creation_type": True, "ref_prompt": False, "clarity": True}
    assert compare_echo(SPECS[0], {"clarity": 720}, {"photo_info": {"clarity": 0}, "motion_info": {"clarity": 720}})[
        "clarity"
    ]
    assert compare_echo(SPECS[1], body, row) == {}


# any response gives an event

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.just(10**4000),
    st.just(-(10**400)),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.just("\ud800"),
    st.just("x" * 100_000),
    st.just('{"code": 1301}'),
    st.just("https://files.example/\ud800.png"),
    st.sampled_from([0, 200, 1201, 1302, 40001, 50000, "0", "success", "Success", "succeed", "failed", "../x", "u-1"]),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def deep(levels=900):
    value = "u-1"
    for _ in range(levels):
        value = [value]
    return value


def paths(value, path=()):
    """Yield the path of every value within a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from paths(inner, (*path, name))


def put(value, path, change):
    """Return a copy of `value` with another value at `path`; `...` removes the value there."""
    if not path:
        return None if change is ... else change
    changed = copy.deepcopy(value)
    holder = changed
    for name in path[:-1]:
        holder = holder[name]
    if change is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = change
    return changed


def encodable(value) -> bool:
    """Return True if SQLite would accept every text in the value."""
    if is_dataclass(value):
        return all(encodable(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple):
        return all(encodable(each) for each in value)
    return not isinstance(value, str) or value.encode("utf-8") is not None


def check(spec, outcome, task):
    """Read a response in every way and check the invariants of every event."""
    submit = read_submit(spec, outcome)
    assert isinstance(submit, Accepted | Interrupted | RetryableFailure | Rejected | AccountBlocked)
    query = read_query(spec, outcome)
    assert isinstance(query, Pending | Finished | Rejected | RetryableFailure | AccountBlocked)
    found = read_reference(spec, task, outcome)
    assert found is None or isinstance(found, Found | RetryableFailure | AccountBlocked)
    page = read_page(spec, outcome)
    assert isinstance(page, ListPage | RetryableFailure | AccountBlocked)
    events, _ = read_many(spec, [task], outcome)
    assert set(events) <= {task.id}
    for event in (submit, query, found, *events.values()):
        assert event is None or encodable(event)
        if isinstance(event, Accepted | Found):
            assert parse_remote_id(event.remote_id) == event.remote_id
        if isinstance(event, Finished):
            assert event.outputs
            assert [output.number for output in event.outputs] == list(range(1, len(event.outputs) + 1))
        if isinstance(event, RetryableFailure) and event.wait is not None:
            assert 0.5 <= event.wait <= 900
    if isinstance(page, ListPage):
        assert all(parse_remote_id(row.remote_id) == row.remote_id and row.created >= 0 for row in page.rows)
    return submit


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@FUZZ
@given(data=st.data())
def test_damaged_response_gives_an_event(data, recorded, task):
    spec, _, good, _ = data.draw(st.sampled_from(recorded))
    body = good.body
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(paths(body))))
        change = ... if data.draw(st.booleans()) else data.draw(JSON)
        body = put(body, path, change)
    status = data.draw(st.sampled_from([good.status, 200, 201, 302, 400, 404, 429, 500, 599]))
    check(spec, Reply(status, body, good.headers), task())


@pytest.mark.slow
@FUZZ
@given(body=JSON, status=st.integers(100, 599), after=st.text(max_size=8))
def test_any_response_gives_an_event(body, status, after, task):
    for spec in SPECS:
        submit = check(spec, Reply(status, body, {"retry-after": after}), task())
        assert status < 500 or isinstance(submit, Interrupted)


@pytest.mark.parametrize(
    ("body", "status", "after"),
    [
        (deep(), 200, ""),
        ({"code": 0, "data": deep()}, 200, ""),
        ({"code": 0, "data": {"task_id": deep(), "task_status": deep()}}, 200, ""),
        ({"code": 0, "data": {"unique_id": deep(), "progress_desc": deep(), "err_msg": deep()}}, 200, ""),
        ({"code": deep(), "message": deep(), "msg": deep()}, 400, "٣"),
        ({"code": 0, "data": [{"task_id": "x", "created_at": 10**400}]}, 200, "1" * 400),
        ({"code": 0, "data": {"list": [{"unique_id": "x", "create_time": -(10**400)}]}}, 200, "-1"),
        ({"code": 0, "data": {"task_id": "x", "task_info": {"external_task_id": {}}}}, 200, "nan"),
        ({"error": {"code": 10**5000}}, 400, ""),
        ({"task_id": 10**5000, "id": True}, 200, ""),
        ({"code": 10**5000, "message": "m"}, 429, "1e9"),
    ],
    ids=range(11),
)
def test_too_deep_or_too_large_response_gives_an_event(body, status, after, task):
    for spec in SPECS:
        check(spec, Reply(status, body, {"retry-after": after}), task())


@pytest.mark.slow
@FUZZ
@given(extra=st.dictionaries(st.text(min_size=1, max_size=12).map("x_{}".format), JSON, max_size=4), data=st.data())
def test_id_is_read_despite_additional_fields(extra, data, recorded):
    good = [case for case in recorded if case[3].get("event") == "Accepted"]
    spec, _, answer, expected = data.draw(st.sampled_from(good))
    event = read_submit(spec, Reply(answer.status, {**extra, **answer.body}))
    assert event == Accepted(expected["remote_id"], f"http {answer.status}")


@pytest.mark.parametrize(
    "link", ["https://files.example/\ud800.png", "https://files.example/\x00", "x\ny", 5, None, ""]
)
def test_unusable_link_is_dropped_alone(link):
    """A link that a database cannot hold does not take the others with it."""
    good = "https://files.example/纸船.png"
    body = {"code": 0, "data": {"unique_id": "u", "progress_desc": "Success", "output_url": [link, good]}}
    assert [output.url for output in read_query(SPECS[0], Reply(200, body)).outputs] == [good]
    body["data"]["output_url"] = [link]
    assert read_query(SPECS[0], Reply(200, body)) == Pending("Success", settling=True)


def test_number_of_outputs_is_bounded():
    links = [f"https://files.example/{n}.png" for n in range(1000)]
    body = {"code": 0, "data": {"unique_id": "u", "progress_desc": "Success", "output_url": [*links, *links]}}
    assert len(read_query(SPECS[0], Reply(200, body)).outputs) == 64
