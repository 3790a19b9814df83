"""Which id an answer without a clear meaning has named."""

import pytest

from runner.tasks.remote_ids import CUT_ANSWER, NAMES_TASK, named_id


@pytest.mark.parametrize(
    ("evidence", "id_"),
    [
        (f"5000 internal, {NAMES_TASK}830895211326457236", "830895211326457236"),
        (f'ReadError; HTTP 200; {CUT_ANSWER}{{"code":0,"request_id":"r-1","data":{{"task_id":"58b1","tas', "58b1"),
        (f'ReadError; HTTP 200; {CUT_ANSWER}{{"code":0,"data":"u\\u4e00 7"', "u一 7"),
        (f'ReadError; HTTP 200; {CUT_ANSWER}{{"task_id": 42, "x', "42"),
        (f'ReadError; HTTP 200; {CUT_ANSWER}{{"task_id": 42', None),
        (f'ReadError; HTTP 200; {CUT_ANSWER}{{"request_id": "r-1", "task_id": "58b', None),
        ('no answer; "task_id": "58b1"', None),
        ("", None),
    ],
)
def test_id_is_read_from_what_is_on_record(evidence, id_):
    assert named_id(evidence) == id_
