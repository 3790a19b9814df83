"""Chanjing's access tokens. An application has one valid token, and a new token invalidates it."""

import secrets
from dataclasses import dataclass

from runner.sandbox.world import World


@dataclass(slots=True)
class Token:
    """An access token, with its expiry and its use."""

    app_id: str
    #: Time of expiry (Unix time, seconds).
    expires: float
    #: Requests made with it.
    uses: int = 0


class Tokens:
    """The valid tokens of all applications."""

    def __init__(self, state: World) -> None:
        self._world = state
        self._tokens: dict[str, Token] = {}
        self._current: dict[str, str] = {}

    def issue(self, app_id: str) -> tuple[str, int]:
        """Return a new token and the Unix time of its expiry. The application's previous token becomes invalid."""
        self._tokens.pop(self._current.get(app_id, ""), None)
        value = secrets.token_hex(16)
        expires = self._world.clock() + self._world.options.token_life_s
        self._tokens[value] = Token(app_id, expires)
        self._current[app_id] = value
        self._world.traffic.counts["tokens_issued"] += 1
        return value, int(expires)

    def holder(self, value: str) -> str | None:
        """Count a use of a token, and return its application, or None if the token is not valid."""
        token = self._tokens.get(value)
        if token is None or token.expires <= self._world.clock():
            return None
        limit = self._world.options.token_requests
        if limit is not None and token.uses >= limit:
            return None
        token.uses += 1
        return token.app_id
