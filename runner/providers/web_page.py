"""Recognise what a host of web pages answers in place of an API: a page, or the way to another address.

A base URL that names a gateway's web pages answers each request so. Some of these answers can only come from a server
of pages, which carries nothing out: the empty front page of a web application, the way to a login page, a refusal of
the method. Any other page may stand in place of an answer, put there by a proxy, and proves nothing by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from runner.providers.requests import Outcome, Reply
from runner.text import sanitize

#: redirects by which a request was certainly not carried out: it is to be sent again elsewhere
_MOVED = frozenset({301, 307, 308})
#: redirects that may follow a request that was carried out, unless they lead to a login page
_FOUND = frozenset({302, 303})
_LOGIN = re.compile(r"(?i)(?:^|[/?&=._-])(?:log-?in|sign-?in|sso|oauth2?|auth)(?:$|[/?&=._-])")
#: refusals of an address or a method; others may come from a proxy behind which the request was carried out
_NO_ROUTE = frozenset({404, 405, 406, 410, 415, 421})
_REFUSALS = frozenset({400, 403}) | _NO_ROUTE
#: characters of a body in which a page shows what it is
_BEGINNING = 1000
_PAGE = re.compile(
    r"\s*(?:<!--.*?-->\s*|<\?xml[^>]*\?>\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
#: what a browser does not show of a page that it can run
_UNSEEN = re.compile(
    r"<!--.*?-->|<(head|script|style|noscript|template)\b.*?(?:</\1\s*>|\Z)|<[^>]*>", re.IGNORECASE | re.DOTALL
)
#: the empty place of a web application
_MOUNT = re.compile(r"<div\s+id=[\"']?(?:root|app|__next|__nuxt)\b[^>]*>\s*</div>", re.IGNORECASE)
#: characters of a title or an address that are kept
_MAX_TEXT = 100


@dataclass(frozen=True, slots=True)
class WebPage:
    """What a host of web pages has answered."""

    #: for people, such as `a web page ("New API")`
    text: str
    #: nothing can have been accepted; False: a proxy may have put it in place of another answer
    is_refusal: bool


def read_web_page(outcome: Outcome) -> WebPage | None:
    """Return what a host of web pages has answered, or None for any other outcome."""
    if not isinstance(outcome, Reply):
        return None
    if outcome.status in _MOVED | _FOUND:
        target = sanitize(outcome.headers.get("location", ""), _MAX_TEXT)
        is_refusal = outcome.status in _MOVED or bool(_LOGIN.search(target))
        return WebPage(f"the way to another address ({target or 'none'})", is_refusal)
    is_answer = 200 <= outcome.status < 300 or outcome.status in _REFUSALS  # noqa: PLR2004 - HTTP
    if not is_answer or not isinstance(outcome.body, str) or not _PAGE.match(outcome.body[:_BEGINNING]):
        return None
    title = _TITLE.search(outcome.body)
    name = sanitize(title[1], _MAX_TEXT).strip() if title else ""
    is_refusal = outcome.status in _NO_ROUTE or is_application(outcome.body)
    return WebPage(f'a web page ("{name}")' if name else "a web page", is_refusal)


def is_application(page: str) -> bool:
    """Return True for the front page of a web application: no text of its own, and a place for what a program shows.

    A server sends it for each path that it has no route for. A page that reports something has text. Of a long page
    only the beginning is known, where the place must stand, or the end of the page.
    """
    if _MOUNT.search(page) is None and not ("<script" in page.lower() and "</html" in page.lower()):
        return False
    return not _UNSEEN.sub("", page).replace("&nbsp;", "").strip()
