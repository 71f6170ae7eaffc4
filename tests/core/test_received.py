"""What is read of replies: exact records, and arrays that numpy wrote; nothing else."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.flower_compat import set_task_identity
from core.messages import ARRAYS, TRAIN, TrainReport, pack_report
from core.received import ReplyError, checked_reply, decode_array, decode_arrays, read_report
from tests.hostile_replies import BYTES, Trap, claims, npy, sent

FINITE = st.floats(-(2.0**90), 2.0**90, width=32)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]), hnp.array_shapes(min_dims=0), elements=FINITE
    ),
    st.booleans(),
)
def test_what_numpy_wrote_comes_back(array: np.ndarray, fortran: bool) -> None:
    written = np.asarray(array, order="F") if fortran else array
    found = decode_array("a", Array(written), array.shape)
    assert found.dtype == array.dtype
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (claims("(1000000000000,)"), "a has 0 bytes instead of 8000000000000"),
        (claims("(3,)", "'|O'") + b"0" * 24, "a has dtype object instead of a float"),
        (claims("(3,)", "'>f8'") + b"0" * 24, "a has dtype >f8 instead of a float"),
        (claims("(-1, -3)") + b"0" * 24, r"a has shape \(-1, -3\)"),
        (claims("(3,)") + b"0" * 25, "a has 25 bytes instead of 24"),
        (npy("{}", version=b"\x03\x00"), r"npy version \(3, 0\)"),
        (Array(np.array([1.0, np.nan])).data, "a is not finite"),
        (Array(np.array([1.0, 1e39])).data, "a is too large"),
    ],
)
def test_what_is_no_array_of_floats_is_refused_by_name(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode_array("a", sent(data))


def test_nothing_is_allocated_or_unpickled_for_a_false_header() -> None:
    tracemalloc.start()
    for data in BYTES:
        with pytest.raises(ReplyError) as caught, checked_reply():
            decode_array("a", sent(data), (3,))
        assert str(caught.value).isprintable()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6
    assert not Trap.sprung


def test_names_and_shapes_are_a_contract() -> None:
    record = ArrayRecord({"a": Array(np.zeros(2)), "b": Array(np.zeros(3))})
    assert sorted(decode_arrays(record, {"a": (2,), "b": None})) == ["a", "b"]
    with pytest.raises(ValueError, match=r"arrays \['a', 'b'\] instead of \['a'\]"):
        decode_arrays(record, {"a": (2,)})
    with pytest.raises(ValueError, match=r"a has shape \(2,\) instead of \(4,\)"):
        decode_arrays(record, {"a": (4,), "b": (3,)})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_refused_in_one_line(data: bytes, magic: bool) -> None:
    with pytest.raises(ReplyError) as caught, checked_reply():
        decode_array("a", sent(b"\x93NUMPY\x01\x00" + data if magic else data))
    assert str(caught.value).isprintable()


def test_another_serialisation_is_refused_by_its_name() -> None:
    good = Array(np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"serialised as 'torch\.Tensor'"):
        decode_array("angles", sent(good.data, "torch.Tensor"))


# --- records ---

ZERO: dict[str, Any] = dict.fromkeys(TrainReport.__dataclass_fields__, 0)
NUMBERS = TrainReport(**{**ZERO, "weight": 1.0})


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
