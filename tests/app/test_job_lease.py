"""The lease of a job during a run."""

from __future__ import annotations

import anyio
import pytest

from runner.app import job_lease
from runner.app.job_lease import Fence, lease_directory, open_lease
from runner.errors import ConfigError
from runner.settings import Settings
from runner.store.store import Store


@pytest.fixture
async def lease(tmp_path):
    (tmp_path / "nas").mkdir()
    store = await Store.open(tmp_path / "job" / ".runner")
    settings = Settings({"RUNNER_LEASE": f"file://{tmp_path}/nas"})
    yield lambda: open_lease(settings, store, "/job", lambda: 60.0)
    await store.aclose()


async def test_lease_of_this_run_that_another_takes_raises_a_fence(lease, monkeypatch):
    monkeypatch.setattr(job_lease, "_INTERVAL", 0.01)
    mine, fences, raised = lease(), [], anyio.Event()

    def raise_fence(fence):
        fences.append(fence)
        raised.set()

    async with mine.held(mode="optional", raise_fence=raise_fence, on_warning=print):
        assert fences == []
        other = lease()
        other._now = lambda: 61.0
        await other.renew(take=True)
        with anyio.fail_after(5):
            await raised.wait()
    assert [fence.kind for fence in fences] == ["state"]
    assert "another run of this job has taken the lease" in fences[0].why


async def test_lease_out_of_reach_warns_once_or_raises_a_fence(lease, tmp_path, monkeypatch):
    monkeypatch.setattr(job_lease, "_INTERVAL", 0.0)
    (tmp_path / "nas").rmdir()
    warnings, fences = [], []
    async with lease().held(mode="optional", raise_fence=fences.append, on_warning=warnings.append):
        await anyio.sleep(0.05)
    assert (len(warnings), fences) == (1, [])
    async with lease().held(mode="required", raise_fence=fences.append, on_warning=warnings.append):
        pass
    assert [fence.kind for fence in fences] == ["configuration"]
    assert (await lease().compare(expected=False, mode="optional", on_warning=warnings.append)) == Fence()
    assert len(warnings) == 2


async def test_own_lease_allows_the_next_run(lease, tmp_path):
    held = lease()
    await held.renew(take=True)
    assert "knows a later run" in await held.find_later_run(expected=True), "of this very run"
    held._store.epoch += 1
    assert await held.find_later_run(expected=True) == ""
    next((tmp_path / "nas").iterdir()).unlink()
    assert await held.find_later_run(expected=False) == ""
    with pytest.raises(OSError, match="is gone"):
        await held.find_later_run(expected=True)


@pytest.mark.parametrize("text", ["/mnt/nas", "https://host/x", "file://host/x", "file:relative"])
def test_only_a_directory_is_an_address(text):
    with pytest.raises(ConfigError, match="RUNNER_LEASE"):
        lease_directory(text)
    assert str(lease_directory("file:///mnt/my%20nas")) == "/mnt/my nas"
    assert open_lease(Settings({}), None, "", lambda: 0.0) is None
