"""Simulation of clients and a strict server in virtual time; the server refuses more than n arrivals in any window."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import count

from runner.ratelimit.window import Slot

FAST, SLOW = (0.001, 0.003), (0.0, 0.4)


@dataclass
class Server:
    """Server that accepts `most` requests in any `seconds` and refuses the others; without `most` it accepts all."""

    most: int | None = None
    seconds: float = 1.0
    #: True if refused requests count as well
    counts_refused: bool = False
    arrivals: list = field(default_factory=list)
    refused: list = field(default_factory=list)
    _window: deque = field(default_factory=deque)

    def admits(self, now):
        """Return True if a request that arrives now is accepted."""
        while self._window and self._window[0] <= now - self.seconds:
            self._window.popleft()
        full = self.most is not None and len(self._window) >= self.most
        if not full or self.counts_refused:
            self._window.append(now)
        (self.refused if full else self.arrivals).append(now)
        return not full

    def use(self, rate):
        """Return the used share of the limit, from the first arrival to the last."""
        arrivals = sorted(self.arrivals)
        return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) / rate


@dataclass(eq=False)
class Client:
    """Process with its rate limit, its maximum number of concurrent requests and its lifetime."""

    window: object
    concurrency: int = 8
    begins: float = 0.0
    #: time at which the process is killed; its later actions do not happen
    dies: float = float("inf")
    kill: object = None
    accepted: int = 0
    idle: int = 0
    wake: float | None = None


class Simulation:
    """Virtual time, a server and the network.

    `there` and `back` are ranges of seconds for the request and the reply, `late` is the range of a timer's delay.
    `stalls` is the share of requests whose bytes leave 20 to 200 ms late. The clients' machine stands still in the
    intervals of `hold`, and the server in those of `server_hold`.
    """

    def __init__(
        self,
        *,
        server=None,
        seed=1,
        there=(0.001, 0.020),
        back=FAST,
        late=(0, 0.0005),
        stalls=0.0,
        hold=(),
        server_hold=(),
    ):
        self.now, self.server = 0.0, server or Server()
        self.dice = random.Random(seed)
        self._there, self._back, self._late, self._stalls = there, back, late, stalls
        self._hold, self._server_hold = hold, server_hold
        self._events, self._numbers = [], count()

    def clock(self):
        return self.now

    def later(self, seconds, call):
        """Schedule a call."""
        self._push(self.now + seconds, call)

    def run(self, clients, total, until=float("inf")):
        """Run until `total` requests were accepted or until the given time, and return the server."""
        self._total = total
        for client in clients:
            for _ in range(client.concurrency):
                self._push(client.begins, self._free, client)
            if client.kill is not None:
                self._push(client.dies, client.kill)
        while self._events and len(self.server.arrivals) < total and self.now < until:
            self.now, _, action, args = heapq.heappop(self._events)
            client = next((arg for arg in args if isinstance(arg, Client)), None)
            if client is None or self.now < client.dies or action == self._arrive:
                action(*args)
        return self.server

    def _push(self, at, action, *args):
        for begin, end in self._server_hold if action == self._arrive else self._hold:
            if begin <= at < end:
                at = end
        heapq.heappush(self._events, (at, next(self._numbers), action, args))

    def _free(self, client):
        client.idle += 1
        self._ask(client)

    def _awake(self, client):
        client.wake = None
        self._ask(client)

    def _ask(self, client):
        while client.idle and client.wake is None and len(self.server.arrivals) < self._total:
            granted = client.window.grant(self.now)
            if not isinstance(granted, Slot):
                client.wake = max(granted, self.now + 1e-6) + self.dice.uniform(*self._late)
                self._push(client.wake, self._awake, client)
                return
            client.idle -= 1
            stalled = self.dice.random() < self._stalls
            self._push(
                self.now + self.dice.uniform(*((0.02, 0.2) if stalled else self._late)), self._send, client, granted
            )

    def _send(self, client, slot):
        client.window.sent(slot, self.now)
        self._push(self.now + self.dice.uniform(*self._there), self._arrive, client, slot, self.now)

    def _arrive(self, client, slot, sent):
        admitted = self.server.admits(self.now)
        client.accepted += admitted
        self._push(self.now + self.dice.uniform(*self._back), self._answer, client, slot, sent, admitted)

    def _answer(self, client, slot, sent, admitted):
        client.window.answered(slot, self.now - sent)
        if not admitted:
            client.window.throttled(self.now, None, slot)
        self._free(client)


def violations(arrivals, most, seconds=1.0):
    """Return the number of requests that a strict server would refuse."""
    arrivals = sorted(arrivals)
    return sum(
        index - bisect_right(arrivals, at - seconds) + 1 > most for index, at in enumerate(arrivals) if index >= most
    )
