"""A whole job in a company's network: names that only the proxy can find, certificates of the company's authority."""

from __future__ import annotations

import pytest

import runner
from runner.errors import ConfigError
from tests.net.test_proxy import Tunnels, authority  # noqa: F401 - a fixture
from tests.odd_gateway import Gateway, job


@pytest.fixture
def company(authority, tmp_path):  # noqa: F811 - the fixture
    """Serve a gateway under a public name that this machine cannot look up. Return it, its port and the authority."""
    ca, tls = authority
    with Gateway().serving(tls) as gateway:
        port = gateway.port
        gateway.url = f"https://api.example.com:{port}"
        yield gateway, port, ca


def environment(proxy, ca):
    return {"RUNNER_PROXY": proxy.url, "RUNNER_CA_FILE": ca}


@pytest.mark.slow
async def test_job_is_bought_and_fetched_through_the_proxy(company, tmp_path):
    gateway, port, ca = company
    async with Tunnels(port) as proxy:
        result = await runner.arun(job(gateway, tmp_path, 3, env=environment(proxy, ca)))
    assert (result.exit_code, result.counts, gateway.posts) == (0, {"done": 3}, 3)
    assert set(proxy.asked) == {f"CONNECT api.example.com:{port} HTTP/1.1"}
    assert len(proxy.asked) >= 4, "each submit in a tunnel of its own"
    assert b"test-key-123456" not in proxy.passed


@pytest.mark.slow
async def test_proxy_that_asks_for_a_password_is_configuration(company, tmp_path):
    gateway, port, ca = company
    async with Tunnels(port, password="YW5uOnB3") as proxy:
        result = await runner.arun(job(gateway, tmp_path, 3, env=environment(proxy, ca)))
    assert (result.exit_code, result.counts, gateway.posts) == (7, {"queued": 3}, 0)
    assert "refused the tunnel with HTTP 407, which asks for a name and a password" in result.describe()


@pytest.mark.slow
async def test_authority_that_is_not_known_is_configuration(company, tmp_path):
    gateway, port, _ = company
    async with Tunnels(port) as proxy:
        result = await runner.arun(job(gateway, tmp_path, 3, env={"RUNNER_PROXY": proxy.url}))
    assert (result.exit_code, result.counts, gateway.posts) == (7, {"queued": 3}, 0)
    assert "certificate" in result.describe()


@pytest.mark.parametrize(
    ("name", "value"),
    [("RUNNER_PROXY", "http://ann:secret-pw@proxy.corp:3128"), ("RUNNER_CA_FILE", "/nowhere/ca.pem")],
)
def test_setting_that_cannot_be_used_sends_nothing(tmp_path, name, value):
    with Gateway().serving() as gateway:
        with pytest.raises(ConfigError, match=name) as caught:
            runner.run(job(gateway, tmp_path, 3, env={name: value}))
        assert gateway.posts == 0
    assert "secret-pw" not in str(caught.value)
