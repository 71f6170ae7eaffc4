"""The door for replies: exact records, and a message anew that holds nothing else of a client."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from core.flower_compat import set_task_identity
from core.messages import ARRAYS, METRICS, TRAIN, TrainReport, pack_report
from core.received import ReplyError, checked_reply, read_report, rebuild_reply

NUMBERS = TrainReport(**dict.fromkeys(TrainReport.__dataclass_fields__, 0))  # type: ignore[arg-type]


def reply() -> Message:
    set_task_identity()
    return Message(pack_report(NUMBERS, {"angles": np.ones(2)}), 7, TRAIN)


@pytest.mark.parametrize(
    "record", [ArrayRecord(), MetricRecord({"x": 1}), ConfigRecord({"x": "y"})]
)
def test_a_record_too_many_or_too_few_is_refused(record: Any) -> None:
    more, less = reply(), reply()
    more.content["more"] = record
    del less.content[ARRAYS]
    for message in (more, less):
        with pytest.raises(ReplyError, match=r"records \[.*instead of"), checked_reply():
            read_report(message, TrainReport)
    assert read_report(reply(), TrainReport) == NUMBERS


def test_a_message_anew_holds_what_was_read_and_nothing_else() -> None:
    sent = reply()
    sent.content["more"] = ConfigRecord({"x": "y"})
    sent.content.metric_records[METRICS]["also"] = 1
    fresh = rebuild_reply(sent, TRAIN, NUMBERS, {"angles": np.zeros(2)})
    assert set(fresh.content) == {METRICS, ARRAYS}
    assert "also" not in fresh.content.metric_records[METRICS]
    assert fresh.content.array_records[ARRAYS]["angles"].numpy().tolist() == [0.0, 0.0]
