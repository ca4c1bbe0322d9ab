"""The reader of ONNX files, against the ``onnx`` package."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from engines import ModelError
from engines.onnx_file import external_data, summarize
from tests.engines import networks

TINY = networks.graph().SerializeToString()


def test_summarize_counts_as_onnx_does() -> None:
    summary = summarize(TINY)
    assert (summary.producer, summary.opset, summary.nodes) == ("tests", 18, 3)
    assert summary.parameters == networks.WEIGHTS.size + 2
    assert summary.operators == {"Cast": 1, "ReduceMean": 1, "MatMul": 1}


def outside(name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


def in_constant() -> onnx.ModelProto:
    model = networks.graph()
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside()))
    return model


def in_subgraph() -> onnx.ModelProto:
    model = networks.graph()
    branch = helper.make_graph([], "branch", [], [], [outside()])
    model.graph.node.append(helper.make_node("If", ["x"], ["i"], then_branch=branch, else_branch=branch))
    return model


def in_function() -> onnx.ModelProto:
    model = networks.graph()
    node = helper.make_node("Constant", [], ["c"], value=outside())
    model.functions.append(helper.make_function("d", "f", [], ["c"], [node], [helper.make_opsetid("", 18)]))
    return model


def in_sparse() -> onnx.ModelProto:
    model = networks.graph()
    model.graph.sparse_initializer.add().values.CopyFrom(outside())
    return model


def by_entry_alone() -> onnx.ModelProto:
    model = networks.graph()
    tensor = outside()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("hide", [in_constant, in_subgraph, in_function, in_sparse, by_entry_alone])
def test_external_data_is_found_wherever_it_hides(hide: Callable[[], onnx.ModelProto]) -> None:
    assert external_data(hide().SerializeToString()) == ["/etc/passwd"]


def test_external_data_of_a_whole_file_is_empty() -> None:
    assert external_data(TINY) == []


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_or_refuse(data)


def read_or_refuse(data: bytes) -> None:
    with contextlib.suppress(ModelError):
        summarize(data)
        external_data(data)


@given(at=st.integers(0, len(TINY) - 1), value=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(at: int, value: int) -> None:
    changed = bytearray(TINY)
    changed[at] = value
    read_or_refuse(bytes(changed))
