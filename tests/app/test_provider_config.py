"""How many submits may be on the wire at once."""

from pathlib import Path

import pytest

from runner.app.provider_config import most_submits
from runner.manifest.parser import parse
from runner.providers import spec as specs

TEXT = "version: 1\nprovider: {}\nmodel: image/kling-v2-1\nparams: {{prompt: a heron}}\nlimits: {{qps: 50{}}}\n"


@pytest.mark.parametrize(
    ("provider", "limit", "can_look_up", "most"),
    [
        ("kling", "", True, 128),
        ("kling", "", False, 2),  # --trust-less
        ("kling", ", submits_at_once: 40", True, 40),
        ("kling-gateway", "", True, 2),
        ("kling-gateway", ", submits_at_once: 40", True, 40),
    ],
)
def test_few_submits_go_out_where_nothing_is_looked_up(provider, limit, can_look_up, most):
    manifest = parse(TEXT.format(provider, limit).encode(), Path("job.yaml")).manifest
    assert most_submits(specs.load(provider), manifest, can_look_up=can_look_up) == most
