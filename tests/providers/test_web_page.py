"""Which answers come from a server of web pages, and which of them leave no doubt."""

import pytest

from runner.providers.requests import NoAnswer, NotSent, Reply
from runner.providers.web_page import read_web_page

SHELL = '<!doctype html><html><head><title>New API</title></head><body><div id="root"></div></body></html>'
TEXT = "<HTML><HEAD><TITLE>Oops</TITLE></HEAD><BODY>Something went wrong</BODY></HTML>"


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(200, SHELL), 'a web page ("New API")'),
        (Reply(200, "\n<!-- built --><!DOCTYPE html><html><body><script>x</script></body></html>"), "a web page"),
        (Reply(404, TEXT), 'a web page ("Oops")'),
        (Reply(301, "", {"location": "https://www.example.com/"}), "the way to another address (https://www.exampl"),
        (Reply(308, None), "the way to another address (none)"),
        (Reply(302, "", {"location": "/auth/sign-in?back=/"}), "the way to another address (/auth/sign-in"),
    ],
)
def test_page_that_leaves_no_doubt(reply, text):
    page = read_web_page(reply)
    assert page is not None
    assert page.is_refusal
    assert page.text.startswith(text)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, TEXT),
        Reply(403, TEXT),
        Reply(400, SHELL.replace("</div>", "Bad request</div>")),
        Reply(302, "", {"location": "/tasks/author/7"}),
        Reply(303, "", {"location": "/tasks/7"}),
        # only the beginning is known, and nothing of its text
        Reply(200, "<!doctype html><html><head><style>" + "a{}" * 600),
    ],
)
def test_page_that_may_stand_for_another_answer(reply):
    page = read_web_page(reply)
    assert page is not None
    assert not page.is_refusal


@pytest.mark.parametrize(
    "outcome",
    [
        Reply(200, {"code": 0}),
        Reply(200, "ok"),
        Reply(200, ""),
        Reply(200, "a <html> in a text"),
        Reply(429, SHELL),
        Reply(502, SHELL),
        Reply(524, TEXT),
        Reply(304, ""),
        NoAnswer("cut"),
        NotSent("no name"),
    ],
)
def test_no_page(outcome):
    assert read_web_page(outcome) is None
