"""The door for replies: exact records, and a message again that holds nothing else of a client."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from core.flower_compat import set_task_identity
from core.messages import ARRAYS, TRAIN, TrainReport, pack_report
from core.received import ReplyError, checked_reply, read_report

NUMBERS = TrainReport(**dict.fromkeys(TrainReport.__dataclass_fields__, 0))


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
