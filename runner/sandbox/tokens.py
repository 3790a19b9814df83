"""Chanjing's access tokens: one lives per application, and a new one ends it."""

import secrets
from dataclasses import dataclass

from runner.sandbox.world import World


@dataclass(slots=True)
class Token:
    """A token and what is left of it."""

    app_id: str
    #: Unix time.
    expires: float
    uses: int = 0


class Tokens:
    """Issues tokens and says whose a token is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._tokens: dict[str, Token] = {}
        self._current: dict[str, str] = {}

    def issue(self, app_id: str) -> tuple[str, int]:
        """Return a new token and the Unix time of its end; the one before it is dead from now on."""
        self._tokens.pop(self._current.get(app_id, ""), None)
        value = secrets.token_hex(16)
        expires = self._world.clock() + self._world.options.token_life_s
        self._tokens[value] = Token(app_id, expires)
        self._current[app_id] = value
        self._world.traffic.counts["tokens_issued"] += 1
        return value, int(expires)

    def holder(self, value: str) -> str | None:
        """Return the application that a living token belongs to, and count the use."""
        token = self._tokens.get(value)
        if token is None or token.expires <= self._world.clock():
            return None
        limit = self._world.options.token_requests
        if limit is not None and token.uses >= limit:
            return None
        token.uses += 1
        return token.app_id
