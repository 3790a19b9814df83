from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.lifecycle.events import Accepted, Blocked, Finished, Found, Interrupted, Pending, Refused, Setback
from runner.providers.evidence import remote_id
from runner.providers.exchange import NoAnswer, NotSent, Reply
from runner.providers.reading import Page, echoed, read_many, read_page, read_query, read_reference, read_submit
from runner.providers.spec import load

SPECS = [load(name) for name in ("chanjing", "kling", "kling-gateway")]


def told(event) -> dict:
    """An event as the recorded answers describe one."""
    if event is None:
        return {"event": "nothing"}
    if isinstance(event, Page):
        return {"rows": [[row.remote_id, row.reference, row.created] for row in event.rows]}
    seen = {"event": type(event).__name__}
    for field in fields(event):
        seen[field.name] = getattr(event, field.name)
    if "fault" in seen:
        seen |= {"why": event.fault.reason, "message": event.fault.message}
    if isinstance(event, Finished):
        seen["urls"] = [output.url for output in event.outputs]
    return seen


def agrees(event, wanted) -> bool:
    seen = told(event)
    assert {name: seen.get(name) for name in wanted} == wanted
    return True


def test_what_a_submits_answer_means(spec, submit_reply, wanted):
    assert agrees(read_submit(spec, submit_reply), wanted)


def test_what_a_querys_answer_means(spec, query_reply, wanted):
    assert agrees(read_query(spec, query_reply), wanted)


def test_what_a_page_of_the_list_says(spec, page_reply, wanted):
    assert agrees(read_page(spec, page_reply), wanted)


def test_what_a_look_up_by_our_reference_says(spec, reference_reply, wanted, task):
    assert agrees(read_reference(spec, task(), reference_reply), wanted)


# no reply at all


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_what_never_left_is_tried_again_and_a_wrong_address_stops_everything(spec, task):
    for read in (read_submit, read_query, read_page):
        event = read(spec, NotSent("refused"))
        assert (type(event), event.kind) == (Setback, "unsent")
        event = read(spec, NotSent("bad certificate", terminal=True))
        assert (type(event), event.kind) == (Blocked, "configuration")
    assert read_reference(spec, task(), NotSent("refused")).kind == "unsent"


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_silence_is_a_doubt_on_a_submit_and_trouble_on_a_query(spec, task):
    silence = NoAnswer("cut off; body so far: {\x1b[31m\ud800")
    event = read_submit(spec, silence)
    assert isinstance(event, Interrupted)
    assert event.evidence.encode("utf-8").decode().isprintable()
    assert read_query(spec, silence).kind == "trouble"
    assert read_page(spec, silence).kind == "trouble"
    assert read_reference(spec, task(), silence).kind == "trouble"
    assert set(read_many(SPECS[0], [task()], silence)[0]) == {1}


# several at once


def page_of(*items, code=0):
    return Reply(200, {"code": code, "msg": "success", "data": {"list": list(items)}})


def many_of(task, *ids):
    return [task("chanjing", id=None, remote_id=id_) for id_ in ids]


def test_a_batch_answers_for_those_it_names_and_for_nobody_else(task):
    chanjing = SPECS[0]
    asked = [task("chanjing", remote_id=id_) for id_ in ("u-1", "u-2", "u-3")]
    asked = [
        type(each)(**{f.name: getattr(each, f.name) for f in fields(each)} | {"id": n})
        for n, each in enumerate(asked, 1)
    ]
    answer = page_of(
        {"unique_id": "u-1", "progress_desc": "Success", "output_url": ["https://files.example/1.png"]},
        {"unique_id": "u-3", "progress_desc": "Queued"},
        {"unique_id": "stranger", "progress_desc": "Fail"},
        {"progress_desc": "Fail"},
        None,
        "u-2",
    )
    events, objects = read_many(chanjing, asked, answer)
    assert {id_: type(event) for id_, event in events.items()} == {1: Finished, 2: Setback, 3: Pending}
    assert events[2].kind == "absent", "being left out proves nothing (FV6, FV7)"
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
def test_a_batch_without_a_list_says_the_same_of_everyone_and_fails_nobody(task, answer, kind):
    events, objects = read_many(SPECS[0], [task("chanjing")], answer)
    assert [event.kind for event in events.values()] == [kind]
    assert objects == {}


def test_an_answer_about_a_batch_is_nothing_where_the_spec_knows_no_batches(task):
    events, _ = read_many(SPECS[1], [task()], page_of({"unique_id": "u-1", "progress_desc": "Success"}))
    assert events[1].kind == "trouble"


# echoes


def test_an_echo_is_compared_field_by_field():
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
    seen = echoed(SPECS[0], body, row)
    assert seen == {"model_code": True, "creation_type": True, "ref_prompt": False, "clarity": True}
    assert echoed(SPECS[0], {"clarity": 720}, {"photo_info": {"clarity": 0}, "motion_info": {"clarity": 720}})[
        "clarity"
    ]
    assert echoed(SPECS[1], body, row) == {}


# whatever comes, only events come out

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
    made = "u-1"
    for _ in range(levels):
        made = [made]
    return made


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*path, name))


def put(value, path, change):
    """`value` with what stands at `path` changed; a change of `...` takes it away."""
    if not path:
        return None if change is ... else change
    made = copy.deepcopy(value)
    holder = made
    for name in path[:-1]:
        holder = holder[name]
    if change is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = change
    return made


def encodable(value) -> bool:
    """Whether SQLite would take every text of it."""
    if is_dataclass(value):
        return all(encodable(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple):
        return all(encodable(each) for each in value)
    return not isinstance(value, str) or value.encode("utf-8") is not None


def check(spec, outcome, task):
    """Read an answer in every way there is, and hold each event to what must never be otherwise."""
    submit = read_submit(spec, outcome)
    assert isinstance(submit, Accepted | Interrupted | Setback | Refused | Blocked)
    query = read_query(spec, outcome)
    assert isinstance(query, Pending | Finished | Refused | Setback | Blocked)
    found = read_reference(spec, task, outcome)
    assert found is None or isinstance(found, Found | Setback | Blocked)
    page = read_page(spec, outcome)
    assert isinstance(page, Page | Setback | Blocked)
    events, _ = read_many(spec, [task], outcome)
    assert set(events) <= {task.id}
    for event in (submit, query, found, *events.values()):
        assert event is None or encodable(event)
        if isinstance(event, Accepted | Found):
            assert remote_id(event.remote_id) == event.remote_id
        if isinstance(event, Finished):
            assert event.outputs
            assert [output.number for output in event.outputs] == list(range(1, len(event.outputs) + 1))
        if isinstance(event, Setback) and event.wait is not None:
            assert 0.5 <= event.wait <= 900
    if isinstance(page, Page):
        assert all(remote_id(row.remote_id) == row.remote_id and row.created >= 0 for row in page.rows)
    return submit


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_whatever_a_damaged_answer_holds_only_events_come_out(data, recorded, task):
    spec, _, good, _ = data.draw(st.sampled_from(recorded))
    body = good.body
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(body))))
        change = ... if data.draw(st.booleans()) else data.draw(JSON)
        body = put(body, path, change)
    status = data.draw(st.sampled_from([good.status, 200, 201, 302, 400, 404, 429, 500, 599]))
    check(spec, Reply(status, body, good.headers), task())


@FUZZ
@given(body=JSON, status=st.integers(100, 599), after=st.text(max_size=8))
def test_whatever_comes_from_a_stranger_only_events_come_out(body, status, after, task):
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
def test_what_is_too_deep_or_too_large_is_still_an_answer(body, status, after, task):
    for spec in SPECS:
        check(spec, Reply(status, body, {"retry-after": after}), task())


@FUZZ
@given(extra=st.dictionaries(st.text(min_size=1, max_size=12).map("x_{}".format), JSON, max_size=4), data=st.data())
def test_a_good_id_is_never_lost_whatever_else_the_answer_grows(extra, data, recorded):
    good = [case for case in recorded if case[3].get("event") == "Accepted"]
    spec, _, answer, wanted = data.draw(st.sampled_from(good))
    event = read_submit(spec, Reply(answer.status, {**extra, **answer.body}))
    assert event == Accepted(wanted["remote_id"], f"http {answer.status}")


@pytest.mark.parametrize(
    "link", ["https://files.example/\ud800.png", "https://files.example/\x00", "x\ny", 5, None, ""]
)
def test_a_link_that_no_database_could_hold_is_none_and_takes_no_other_with_it(link):
    good = "https://files.example/纸船.png"
    body = {"code": 0, "data": {"unique_id": "u", "progress_desc": "Success", "output_url": [link, good]}}
    assert [output.url for output in read_query(SPECS[0], Reply(200, body)).outputs] == [good]
    body["data"]["output_url"] = [link]
    assert read_query(SPECS[0], Reply(200, body)) == Pending("Success", settling=True)


def test_no_more_outputs_are_taken_than_anyone_orders():
    links = [f"https://files.example/{n}.png" for n in range(1000)]
    body = {"code": 0, "data": {"unique_id": "u", "progress_desc": "Success", "output_url": [*links, *links]}}
    assert len(read_query(SPECS[0], Reply(200, body)).outputs) == 64
