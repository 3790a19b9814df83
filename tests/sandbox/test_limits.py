from runner.sandbox.limits import SlidingWindow, Slots


def admitted(times, qps, window_s=1.0):
    window = SlidingWindow()
    return [at for at in times if window.admit("submit", "me", at, qps, window_s)]


def test_no_window_holds_more_than_limit():
    times = [n / 100 for n in range(1000)]
    kept = admitted(times, 5)
    assert all(b - a >= 1 for a, b in zip(kept, kept[5:], strict=False))
    assert len(kept) == 50


def test_qps_below_one_lengthens_window():
    assert admitted([0, 1, 1.9, 2, 3.9, 4], 0.5) == [0, 2, 4]


def test_refused_requests_do_not_count():
    assert admitted([0, 0.9, 1.0], 1) == [0, 1.0]


def test_endpoints_and_accounts_are_limited_separately():
    window = SlidingWindow()
    assert window.admit("a", "x", 0, 1, 1)
    assert window.admit("b", "x", 0, 1, 1)
    assert window.admit("a", "y", 0, 1, 1)
    assert not window.admit("a", "x", 0, 1, 1)


def test_slots_become_free_when_tasks_end():
    slots = Slots()
    slots.take(("kling",), 10, 3)
    slots.take(("kling",), 5, 1)
    assert [slots.taken(("kling",), now) for now in (0, 5, 10)] == [4, 3, 0]
