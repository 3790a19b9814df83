"""Gateways of the kind that people rent: busy now and then, with words of their own, or not there at all."""

from __future__ import annotations

import itertools

import pytest

import runner
from tests.odd_gateway import Gateway, job

SHELL = (
    "<!doctype html><html><head><title>Panel</title><script src=/a.js></script></head>"
    '<body><div id="app"></div></body></html>'
)
PORTAL = "<html><head><title>Wi-Fi</title></head><body><h1>Please log in to use this network</h1></body></html>"


# busy gateways


def busy(*headers):
    return 429, {"error": {"message": "当前分组上游负载已饱和，请稍后再试", "type": "new_api_error"}}, *headers


@pytest.mark.slow
def test_fa13_busy_answers_now_and_then_stop_no_submits(tmp_path):
    every_third = Gateway(lambda number: busy(("Retry-After", "1")) if number % 4 == 1 else None)
    with every_third.serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 12))
    assert (result.counts, gateway.posts) == ({"done": 9, "held": 3}, 12)
    assert result.exit_code == 4


@pytest.mark.slow
def test_fa13_gateway_that_is_always_busy_is_left_alone(tmp_path):
    with Gateway(lambda _: busy(("Retry-After", "1"))).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 12))
    assert result.counts == {"held": 3, "queued": 9}
    assert gateway.posts == 3, "one by one, with a pause after each"


# addresses that are none of an API

PAGES = {
    "application": (200, SHELL),
    "application without scripts": (200, "<!DOCTYPE html>\n<html><body><div id=root></div></body></html>"),
    "method not allowed": (405, "<html><body><h1>405 Not Allowed</h1></body></html>"),
    "moved": (301, "", ("Location", "https://www.example.com/")),
    "login": (302, "", ("Location", "/user/login?next=/kling")),
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_fn19_web_pages_alone_are_a_wrong_address(tmp_path, page):
    with Gateway(lambda _: page).serving() as gateway:
        result = runner.run(job(gateway, tmp_path))
    assert (result.exit_code, result.counts, gateway.posts) == (7, {"queued": 4}, 1)
    assert "KLING_GATEWAY_BASE_URL" in result.describe()
    assert result.summary["submitted"] == 0


def test_fn19_portal_that_answers_everything_is_a_wrong_address(tmp_path):
    with Gateway(lambda _: (200, PORTAL), lambda _: (200, PORTAL)).serving() as gateway:
        result = runner.run(job(gateway, tmp_path))
    assert (result.exit_code, result.counts, gateway.posts) == (7, {"queued": 4}, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [(200, PORTAL), (302, "", ("Location", "/tasks/7")), (303, "", ("Location", "/tasks/7")), (502, SHELL)],
    ids=["portal", "found", "see other", "bad gateway"],
)
def test_fn19_page_of_a_host_that_answers_questions_is_a_doubt(tmp_path, page):
    """A proxy may have put it in place of an answer: the task may be paid for, and is held."""
    with Gateway(lambda number: page if number == 1 else None).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 2))
    assert (result.exit_code, result.counts) == (4, {"held": 1, "done": 1})


@pytest.mark.slow
@pytest.mark.parametrize("page", [(200, SHELL), (301, "", ("Location", "/"))], ids=["application", "moved"])
def test_fn19_page_of_a_host_that_has_sold_is_a_doubt(tmp_path, page):
    answers = itertools.chain([None], itertools.repeat(page))
    with Gateway(lambda _: next(answers)).serving() as gateway:
        assert runner.run(job(gateway, tmp_path, 1)).counts == {"done": 1}
        result = runner.run(job(gateway, tmp_path, 2))
    assert (result.exit_code, result.counts) == (4, {"done": 1, "held": 1})


NO_ROUTE = [(404, "<html>404 Not Found</html>"), (404, "404 page not found")]


@pytest.mark.slow
@pytest.mark.parametrize("page", NO_ROUTE, ids=["page", "text"])
def test_fn19_no_such_address_where_it_has_sold_is_a_doubt(tmp_path, page):
    """Whoever answers so may stand before a host that has taken the task: it is not bought again unasked."""
    with Gateway(lambda number: page if number == 3 else None).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 4))
        assert (result.exit_code, result.counts) == (4, {"done": 3, "held": 1})
        assert runner.run(job(gateway, tmp_path, 4)).exit_code == 4
    assert gateway.posts == 4


@pytest.mark.parametrize("page", NO_ROUTE, ids=["page", "text"])
def test_fn19_no_such_address_from_the_start_is_configuration(tmp_path, page):
    with Gateway(lambda _: page).serving() as gateway:
        result = runner.run(job(gateway, tmp_path))
    assert (result.exit_code, result.counts, gateway.posts) == (7, {"queued": 4}, 1)


BARRED = {
    "login": (401, "<html>401 Authorization Required</html>"),
    "filter": (403, "<html>Blocked by the web filter</html>"),
    "no body": (403, ""),
    "payment": (402, "Payment Required"),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", BARRED.values(), ids=BARRED)
def test_fn19_page_that_bars_an_account_that_bought_is_a_doubt(tmp_path, page):
    """A proxy that opens TLS and then logs its user out has passed the request on: it is not bought again unasked."""
    with Gateway(lambda number: page if number == 3 else None).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 4))
        assert (result.exit_code, result.counts) == (4, {"done": 3, "held": 1})
        assert runner.run(job(gateway, tmp_path, 4)).exit_code == 4
    assert gateway.posts == 4


@pytest.mark.parametrize("page", BARRED.values(), ids=BARRED)
def test_fn19_page_that_bars_from_the_start_is_believed(tmp_path, page):
    with Gateway(lambda _: page).serving() as gateway:
        result = runner.run(job(gateway, tmp_path))
    assert (result.counts, gateway.posts) == ({"queued": 4}, 1)
    assert result.exit_code == (6 if page[0] == 402 else 12)


@pytest.mark.slow
def test_fn19_refused_key_in_json_is_believed_after_sales(tmp_path):
    answer = 401, {"error": {"message": "invalid token", "type": "new_api_error"}}
    with Gateway(lambda number: answer if number >= 3 else None).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 4))
    assert (result.exit_code, result.counts.get("held", 0), gateway.posts) == (12, 0, 3)


# state words that no spec lists


def says(word):
    return lambda task: (200, {"code": 0, "data": {"task_id": task, "task_status": word}}) if task == "t2" else None


@pytest.mark.slow
@pytest.mark.parametrize("word", ["aborted", "已取消", 7])
def test_fv03_unlisted_state_is_stuck_after_the_usual_time(tmp_path, monkeypatch, word):
    monkeypatch.setattr("runner.scheduler.poll_schedule._BORNE_AT_LEAST", 2.0)
    monkeypatch.setattr("runner.scheduler.poll_schedule._USUAL_TIMES", 1.0)
    with Gateway(poll=says(word)).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 2))
        assert (result.exit_code, result.counts) == (3, {"done": 1, "stranded": 1})
        (lost,) = result.tasks(state="stranded")
        assert (lost.error.reason, lost.error.code) == ("stuck", str(word))
        gateway.poll = lambda _: None
        again = runner.run(job(gateway, tmp_path, 2))
    assert (again.counts, gateway.posts) == ({"done": 2}, 2), "made after all, and paid for once"


@pytest.mark.slow
def test_fv03_unlisted_state_keeps_no_run_after_its_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr("runner.scheduler.run._UNLISTED_GRACE", 1.0)
    with Gateway(poll=says("rolled back")).serving() as gateway:
        result = runner.run(job(gateway, tmp_path, 2), deadline=1.0)
    assert (result.exit_code, result.counts) == (5, {"done": 1, "running": 1})
    assert "'rolled back', which the spec does not list" in result.describe()
