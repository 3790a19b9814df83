"""Tasks made from a request that was checked before are those that are made the long way, and so are the messages.

Larger: `EXAMPLES_TIMES=50 pytest tests/manifest/test_request_cache.py`.
"""

from __future__ import annotations

import base64
import os
import tracemalloc
from datetime import timedelta

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import ManifestError
from runner.manifest.diagnostics import Diagnostics
from runner.manifest.expand import ManifestExpander
from runner.manifest.parser import parse
from runner.manifest.request_cache import RequestCache
from runner.providers.catalogue import Catalogue
from tests.manifest.conftest import FakeCatalogue, FakeShape

TIMES = int(os.environ.get("EXAMPLES_TIMES", "1"))
PROOF = settings(
    deadline=timedelta(seconds=20),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=150 * TIMES,
)
CATALOGUE = Catalogue()
#: models with and without texts that exclude each other, slots by a parameter, and images
MODELS = [
    ("chanjing", "kling-v2-1"),
    ("kling", "image/kling-v2-1"),
    ("kling", "image/kling-v1"),
    ("kling", "text2video/kling-v1-6"),
    ("kling", "image2video/kling-v2-1"),
    ("kling-gateway", "image2video/kling-v2-1-master"),
    ("chanjing", "Doubao-Seedance-1.0-lite-i2v"),
]
TEXTS = st.sampled_from([
    "a boat", "a boat ", " a boat", "two\nlines", "two\r\nlines", "caf\u00e9", "cafe\u0301", "青瓷茶壶", "\ufeffa boat",
    "", " ", "1", "1.0", "01", "-5", "true", "1:1", "16:9", "2048", "x" * 3000, "sha256:" + "0" * 64, "\x02", '"', "\\",
    "https://files.example/1.png", "https://files.example/2.png?a=b&c=d", "no file.png", "data:image/png;base64,AA",
    "{{ prompt }}", "\u2028", "\x7f",
])  # fmt: skip
VALUES = st.one_of(TEXTS, TEXTS, st.sampled_from([None, 1, 1.0, True, 0, -1, 2**40, 0.5, ["a boat"], [1, 2]]))
COLUMNS = [
    "prompt", "negative_prompt", "image", "image_tail", "aspect_ratio", "seed", "n", "clarity", "mode", "duration",
    "cfg_scale", "note", "Art Style", "first",
]  # fmt: skip
ROWS = st.lists(st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=6), min_size=1, max_size=8)
PARAMS = st.dictionaries(
    st.sampled_from(["prompt", "negative_prompt", "image", "aspect_ratio", "n", "seed", "mode"]),
    st.one_of(TEXTS, st.sampled_from([
        "{{ prompt }}", "{{ note }} at night", "{{ note | upper }}", "{{ index }}-{{ repeat }}", "{{ Art_Style }}",
        "{% if note %}{{ note }}{% endif %}", 1, 2, None,
    ])),
    max_size=3,
)  # fmt: skip
MATRICES = st.sampled_from([
    {}, {}, {}, {"note": ["ink", "oil"]}, {"n": [1, 2]}, {"seed": [1, "1", 1.0]}, {"prompt": ["a boat", "a kite"]},
    {"negative_prompt": [None, "rain"]},
])  # fmt: skip


def expanded(parsed, catalogue=CATALOGUE):
    """Return the drafts as JSON, the numbers of both passes, and all diagnostics of both."""
    found, numbers = [], []
    for is_check in (False, True):
        diagnostics = Diagnostics(parsed.manifest.file)
        expander = ManifestExpander(parsed, catalogue, diagnostics)
        for draft in expander.count() if is_check else expander.drafts():
            if draft is not None:
                values = [getattr(draft, name) for name in draft.__slots__]
                found.append(orjson.dumps([*values, list(draft.request)]))
        numbers.append((expander.draft_count, expander.merged_count, expander.by_provider, expander.key_sum))
        try:
            diagnostics.raise_any()
        except ManifestError as error:
            numbers.append((error.diagnostics, error.omitted))
        numbers.append(diagnostics.warnings)
    return found, numbers


def manifest_of(tmp_path, head, rows, **more):
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    text = orjson.dumps({"version": 1, **head, "items": {"file": "rows.jsonl"}, **more})
    return parse(text, tmp_path / "job.yaml")


@PROOF
@given(
    model=st.sampled_from(MODELS), rows=ROWS, params=PARAMS, matrix=MATRICES, repeat=st.sampled_from([1, 1, 2]),
    times=st.integers(1, 3),
)  # fmt: skip
def test_same_tasks_and_messages_as_the_long_way(tmp_path, model, rows, params, matrix, repeat, times):
    provider, name = model
    # the same rows again, with other texts, so that requests are found that were checked before
    again = [{key: f"{value}!" if key == "prompt" else value for key, value in row.items()} for row in rows * times]
    head = {"provider": provider, "model": name}
    more = {"params": params, "matrix": matrix, "repeat": repeat}
    try:
        parsed = manifest_of(tmp_path, head, [*rows, *again], **{key: each for key, each in more.items() if each})
    except ManifestError:
        return
    fast = expanded(parsed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestCache, "find", lambda *_: None)
        assert expanded(parsed) == fast


def test_most_rows_of_a_table_are_not_checked_again(tmp_path, monkeypatch):
    rows = [{"prompt": f"boat {number}", "seed": str(number), "n": str(number % 3 + 1)} for number in range(300)]
    parsed = manifest_of(tmp_path, {"provider": "kling", "model": "image/kling-v1"}, [
        {"prompt": row["prompt"], "n": row["n"], "image": f"https://files.example/{row['seed']}.png"} for row in rows
    ])  # fmt: skip
    schema, counted = CATALOGUE.find("kling", "image/kling-v1"), []
    request = type(schema).request
    monkeypatch.setattr(type(schema), "request", lambda self, params: counted.append(1) or request(self, params))
    found, _ = expanded(parsed)
    assert len(found) == 300
    assert len(counted) <= 6  # one for each `n`, in both passes


def test_numbers_that_are_no_texts_do_not_fill_the_memory(tmp_path):
    rows = [{"prompt": "a boat", "cfg_scale": number / 10_000} for number in range(3_000)]
    head = {"provider": "kling", "model": "text2video/kling-v1-6"}
    parsed = manifest_of(tmp_path, head, rows)
    found, _ = expanded(parsed)
    assert len(set(found)) == 3_000


def is_same_the_long_way(parsed, catalogue=CATALOGUE):
    fast = expanded(parsed, catalogue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestCache, "find", lambda *_: None)
        return expanded(parsed, catalogue) == fast


@pytest.mark.parametrize("text", ["\x020\x03kling\x02", '"', "0]"])
def test_text_that_looks_like_a_mark(tmp_path, text):
    rows = [{"prompt": f"{text}{number}", "negative_prompt": text} for number in range(5)]
    assert is_same_the_long_way(manifest_of(tmp_path, {"provider": "kling", "model": "text2video/kling-v1-6"}, rows))


@pytest.mark.parametrize(("first", "second"), [(1, True), (True, 1), (1, 1.0), ("1", 1), (2, 2.0)])
def test_equal_numbers_of_other_types(tmp_path, first, second):
    rows = [{"prompt": "a boat", "n": first}, {"prompt": "a kite", "n": second}]
    assert is_same_the_long_way(manifest_of(tmp_path, {"provider": "kling", "model": "image/kling-v1"}, rows))


def test_a_text_that_becomes_empty(tmp_path):
    head = {"provider": "kling", "model": "text2video/kling-v3", "params": {"prompt": "{{ note }}"}}
    parsed = manifest_of(tmp_path, head, [{"note": "a boat"}, {"note": ""}, {"note": "a kite"}])
    assert "needs prompt" in str(expanded(parsed)[1])
    assert is_same_the_long_way(parsed)


class Implied(FakeShape):
    """A model that takes `plain` for `x` if nothing is said."""

    def __init__(self):
        super().__init__(implied={"x": "plain"})


@pytest.mark.parametrize("texts", [["plain", "bright"], ["bright", "plain "], ["plain", "plain"]])
def test_a_value_that_is_implied_anyway(tmp_path, texts):
    catalogue = FakeCatalogue()
    catalogue.shapes["ink"] = Implied()
    rows = [{"prompt": "a boat"}, *({"prompt": "a boat", "x": text} for text in texts)]
    parsed = manifest_of(tmp_path, {"provider": "fake", "model": "ink"}, rows)
    assert is_same_the_long_way(parsed, catalogue)
    assert len(expanded(parsed, catalogue)[0]) == len({"plain", *(text.strip() for text in texts)})


def test_images_in_cells_are_not_kept(tmp_path):
    """Each choice of the others is kept once, and none of them with its megabytes."""
    cells = [base64.b64encode(bytes([number]) * 300_000).decode() for number in range(40)]
    rows = [{"prompt": "a boat", "image": cell, "cfg_scale": number / 100} for number, cell in enumerate(cells)]
    parsed = manifest_of(tmp_path, {"provider": "kling", "model": "image2video/kling-v1-6"}, rows)
    expander = ManifestExpander(parsed, CATALOGUE, Diagnostics(parsed.manifest.file))
    tracemalloc.start()
    for _ in expander.count():
        pass
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert expander.draft_count == len(rows)
    assert kept < 4 * len(cells[0])
