"""FP3, power loss: only synced data is on the disk for certain, and any part of the rest."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from random import Random

import pytest

from tests.faults import sick_sqlite
from tests.faults.conftest import FAST, ROOT, ended, images, sandbox
from tests.faults.power import Disk

pytestmark = pytest.mark.skipif(not sick_sqlite.available(), reason="this Python hides its SQLite")

#: recorded from the first import on; the log is brought home every few pages, as in a job of many tasks
RECORDED = """
from runner.store import store as store_module
from tests.faults.power import record
record({log!r}, {root!r})
set_up = store_module.set_up_connection
def often(connection, **options):
    set_up(connection, **options)
    connection.execute("pragma wal_autocheckpoint = 6")
store_module.set_up_connection = often
"""
#: where the light goes out, and whether anything that was not synced survives
CUTS = (("answer received:3", False), ("id committed:4", True), ("done committed:2", False), ("renamed:1", True))


@pytest.mark.slow
def test_fp03_power_loss_loses_no_id_and_no_finished_byte(rig, tmp_path_factory):
    """Power loss loses no id and no byte of a finished file."""
    rig.write("job.yaml", images(12, qps=30))
    chance = Random(1)
    with sandbox(*FAST) as box:
        for number, (point, more) in enumerate(CUTS):
            disk, log = Disk(rig.root), tmp_path_factory.mktemp("deeds") / f"{number}.log"
            before = RECORDED.format(log=str(log), root=str(rig.root))
            code, _, err = ended(rig.sick(before, "run", "job.yaml", env={**box.env, "RUNNER_CRASH_AT": point}))
            assert code == -9, f"{point}: {err}"
            assert disk.replay(log) > 50
            disk.cut(chance if more else None)
        # what the account's first purchases leave open, the next ones settle
        rig.write("job.yaml", images(16, qps=30))
        rig.finishes(box, 16)


COMMITS = """
import sqlite3, sys
sys.path.insert(0, sys.argv[1])
from tests.faults.power import record
record(sys.argv[2], sys.argv[3])
connection = sqlite3.connect(sys.argv[3] + "/x.db", isolation_level=None)
connection.execute("pragma journal_mode = wal")
connection.execute("pragma synchronous = " + sys.argv[4])
connection.execute("create table t (a)")
connection.execute("pragma wal_checkpoint(truncate)")
for number in range(5):
    connection.execute("insert into t values (?)", (number,))
import os
os._exit(0)
"""


@pytest.mark.parametrize(("mode", "left"), [("full", 5), ("normal", 0)])
def test_disk_model_distinguishes_full_from_normal(tmp_path, mode, left):
    """With synchronous=NORMAL commits are lost, so the test above can fail."""
    (root := tmp_path / "root").mkdir()
    (root / "x.db").touch()
    disk, log = Disk(root), tmp_path / "log"
    subprocess.run([sys.executable, "-c", COMMITS, str(ROOT), str(log), str(root), mode], check=False, timeout=30)
    disk.replay(log)
    disk.cut()
    with closing(sqlite3.connect(root / "x.db")) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (left,)
