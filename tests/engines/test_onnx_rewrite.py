"""Rewritten graphs answer as the ones they came from: folding, pixels as input, taps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from engines import InputSpec, ModelError, UsageError, load_spec, open_engine, prepare_input
from engines.onnx_fold import fold_batch_norms, fold_casts, rewrite_batch_norms
from engines.onnx_fuse import fuse_uint8
from engines.onnx_graph import Graph, read_graph, write_model
from engines.onnx_tap import stages, tap
from tests.engines import convolutions, networks

Array = npt.NDArray[Any]
QUICK = settings(max_examples=15, deadline=None)


def answers(graph: Graph | onnx.ModelProto, x: Array) -> Array:
    model = graph.finished() if isinstance(graph, Graph) else graph
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x})
    return np.asarray(output)


def pictures(n: int = 2, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 3, convolutions.SIDE, convolutions.SIDE), dtype=np.float32)


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


@QUICK
@given(seed=st.integers(0, 1000), epsilon=st.sampled_from([1e-5, 1e-3, 2e-5]))
def test_folded_graph_answers_as_before_without_cast_or_batch_norm(seed: int, epsilon: float) -> None:
    model = convolutions.resnet(seed=seed, epsilon=epsilon)
    graph = Graph(model, "tiny").copy()
    assert fold_casts(graph) == 15
    assert fold_batch_norms(graph) == 2  # stem and inner
    assert rewrite_batch_norms(graph) == 2  # the two before their activations
    assert not {"Cast", "BatchNormalization"} & set(operators(graph))
    np.testing.assert_allclose(answers(graph, pictures()), answers(model, pictures()), rtol=1e-4, atol=1e-5)


def test_batch_norm_of_a_convolution_that_others_read_too_stays_apart() -> None:
    model = convolutions.resnet()
    next(node for node in model.graph.node if node.op_type == "Add").input[1] = "stem"
    graph = Graph(model, "tiny").copy()
    fold_casts(graph)
    assert fold_batch_norms(graph) == 1
    np.testing.assert_allclose(answers(graph, pictures()), answers(model, pictures()), rtol=1e-4, atol=1e-5)


def test_batch_norm_in_training_mode_is_left_alone() -> None:
    model = convolutions.resnet()
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    graph = Graph(model, "tiny")
    fold_casts(graph)
    assert fold_batch_norms(graph) == 1


mean_or_std = st.tuples(*[st.floats(0.1, 0.9)] * 3)


@QUICK
@given(
    mean=mean_or_std, std=mean_or_std, layout=st.sampled_from(["NCHW", "NHWC"]), color=st.sampled_from(["RGB", "BGR"])
)
def test_fused_input_answers_as_the_box_would_normalise(
    tmp_path_factory: pytest.TempPathFactory, mean: Any, std: Any, layout: Any, color: Any
) -> None:
    side = convolutions.SIDE
    wanted = InputSpec(layout=layout, height=side, width=side, mean=mean, std=std, color=color)
    model = convolutions.resnet()
    if layout == "NHWC":
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("nhwc", 1, ["n", side, side, 3]))
        model.graph.node.insert(0, helper.make_node("Transpose", ["nhwc"], ["x"], perm=[0, 3, 1, 2]))
    path = networks.save(tmp_path_factory.mktemp("fused"), model, input=wanted, output=convolutions.FEATURES)
    fused = path.with_name("fused.onnx")
    write_model(fused, *fuse_uint8(*read_graph(path)))
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (3, 24, 20, 3), dtype=np.uint8)
    with open_engine(path, "cpu") as before, open_engine(fused, "cpu") as after:
        rows = [np.stack([prepare_input(photo, engine.spec.input) for photo in photos]) for engine in (before, after)]
        assert rows[1].dtype == np.uint8
        assert rows[1].nbytes * 4 == rows[0].nbytes
        expected = before.infer(rows[0])
        np.testing.assert_allclose(after.infer(rows[1]), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
        assert after.spec.origin == before.spec.sha256 != after.spec.sha256


def test_model_that_takes_pixels_is_not_fused_again(tmp_path: Path) -> None:
    graph, spec = fuse_uint8(*read_graph(convolutions.save(tmp_path)))
    with pytest.raises(ModelError, match="already"):
        fuse_uint8(graph, spec)


def test_tap_of_a_classifier_is_the_row_that_its_dense_layer_reads(tmp_path: Path) -> None:
    path = convolutions.save_classifier(tmp_path)
    out = tmp_path / "features.onnx"
    spec = write_model(out, *tap(*read_graph(path), []), new_origin=True)
    assert (spec.task, spec.output.size, spec.labels) == ("features", convolutions.WIDTH, None)
    assert spec.origin == spec.sha256 == load_spec(out).sha256
    with open_engine(out, "cpu") as engine:
        np.testing.assert_array_equal(engine.infer(pictures()), answers(convolutions.resnet(), pictures()))


def gated(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with a squeeze-and-excitation block behind its stem, whose rows are no stage."""
    rng, width = np.random.default_rng(1), convolutions.WIDTH
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "stem.out":
                node.input[index] = "gated"
    made = [
        helper.make_node("GlobalAveragePool", ["stem.out"], ["se.pool"]),
        helper.make_node("Flatten", ["se.pool"], ["se.row"]),
        helper.make_node("Gemm", ["se.row", "se.w"], ["se.dense"]),
        helper.make_node("Sigmoid", ["se.dense"], ["se.gate"]),
        helper.make_node("Unsqueeze", ["se.gate", "se.axes"], ["se.map"]),
        helper.make_node("Mul", ["stem.out", "se.map"], ["gated"]),
    ]
    at = next(i for i, node in enumerate(model.graph.node) if "stem.out" in node.output)
    for node in reversed(made):
        model.graph.node.insert(at + 1, node)
    weights = rng.standard_normal((width, width), dtype=np.float32)
    axes = numpy_helper.from_array(np.array([2, 3]), "se.axes")
    model.graph.initializer.extend([numpy_helper.from_array(weights, "se.w"), axes])
    return model


def test_pooled_row_is_not_that_of_a_squeeze_and_excitation() -> None:
    graph = Graph(gated(convolutions.resnet(classes=convolutions.CLASSES)), "tiny")
    assert [stage.tensor for stage in stages(graph) if stage.is_pooled] == ["features"]
    headless = Graph(gated(convolutions.resnet()), "tiny")
    assert [stage.tensor for stage in stages(headless) if stage.is_pooled] == ["features"]


def test_pooled_row_is_what_the_last_of_several_dense_layers_reads() -> None:
    model = convolutions.resnet(classes=convolutions.CLASSES)
    dense = next(node for node in model.graph.node if node.op_type == "MatMul")
    dense.input[0] = "hidden"
    at = list(model.graph.node).index(dense)
    model.graph.node.insert(at, helper.make_node("Relu", ["hidden.dense"], ["hidden"]))
    model.graph.node.insert(at, helper.make_node("MatMul", ["features", "hidden.w"], ["hidden.dense"]))
    weights = np.eye(convolutions.WIDTH, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "hidden.w"))
    graph = Graph(model, "tiny")
    assert [stage.tensor for stage in stages(graph) if stage.is_pooled] == ["hidden"]


def test_stages_are_the_last_map_of_each_size_and_the_pooled_row(tmp_path: Path) -> None:
    graph, _ = read_graph(convolutions.save_classifier(tmp_path))
    assert [(stage.tensor, stage.side) for stage in stages(graph)] == [("last.out", (8, 8)), ("features", None)]


@QUICK
@given(power=st.floats(1, 6))
def test_taps_are_joined_in_order_and_pooled_by_the_generalised_mean(
    tmp_path_factory: pytest.TempPathFactory, power: float
) -> None:
    path = convolutions.save_classifier(tmp_path_factory.mktemp("tap"))
    graph, spec = read_graph(path)
    whole = graph.copy()
    whole.model.graph.output.append(helper.make_empty_tensor_value_info("stem.out"))
    session = ort.InferenceSession(whole.model.SerializeToString(), providers=["CPUExecutionProvider"])
    stem, last = session.run(["stem.out", "y"], {"x": pictures()})
    tapped, changed = tap(graph, spec, ["stem.out", "features"], power)
    got = answers(tapped, pictures())
    assert got.shape == (2, changed.output.size) == (2, 2 * convolutions.WIDTH)
    expected = (np.maximum(stem.astype(np.float64), 1e-6) ** power).mean(axis=(2, 3)) ** (1 / power)
    np.testing.assert_allclose(got[:, : convolutions.WIDTH], expected, rtol=1e-4, atol=1e-5)
    assert last.shape == (2, convolutions.CLASSES)


@pytest.mark.parametrize(
    ("names", "power"), [(["nothing"], 1.0), (["dense"], 1.0), (["stem.out", "stem.out"], 1.0), (["stem.out"], 0.5)]
)
def test_senseless_tap_is_refused(tmp_path: Path, names: list[str], power: float) -> None:
    with pytest.raises(UsageError):
        tap(*read_graph(convolutions.save_classifier(tmp_path)), names, power)


def test_old_opset_is_raised_and_unnamed_nodes_get_names(tmp_path: Path) -> None:
    model = convolutions.resnet()
    model.opset_import[0].version = 11
    graph = Graph(model, "tiny")
    assert graph.model.opset_import[0].version == 17
    assert len({node.name for node in graph.nodes}) == len(graph.nodes)
    np.testing.assert_allclose(answers(graph, pictures()), answers(convolutions.resnet(), pictures()), atol=1e-6)


def test_weights_that_only_branches_read_stay() -> None:
    model = convolutions.resnet()
    last = model.graph.node[-1]
    last.output[0] = "row"
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Add", ["row", f"{name}.w"], [f"{name}.out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}.out", onnx.TensorProto.FLOAT, ["n", convolutions.WIDTH])],
        )
        for name in ("then", "else")
    }
    for name in ("then", "else"):
        weight = np.full(convolutions.WIDTH, len(name), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, f"{name}.w"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "choice"))
    model.graph.node.append(helper.make_node("If", ["choice"], ["features"], **branches))
    graph = Graph(model, "tiny")
    before = answers(model, pictures())
    fold_casts(graph)
    np.testing.assert_allclose(answers(graph, pictures()), before, atol=1e-5)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40])
def test_bytes_that_are_no_graph_are_refused(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(ModelError):
        read_graph(networks.save(tmp_path, damage))
