"""ONNX to a TensorRT plan, on the GPU that will run it; what the bindings are needed for, and nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from engines.build_progress import Phases, Progress
from engines.errors import BuildStoppedError, ModelError
from engines.plan_manifest import PlanSection
from engines.tensorrt_api import bindings, complaint, has, logger, refuse_complaints

if TYPE_CHECKING:
    import tensorrt as trt

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, the timing cache to keep for the next build, and the plan's layers as the engine inspector tells them."""

    plan: bytes
    timing_cache: bytes
    layers: list[dict[str, Any]]


def tensorrt_version() -> str:
    """The installed TensorRT's version. Raises ``ModelError`` where there is none."""
    return str(bindings().__version__)


def is_strongly_typed() -> bool:
    """Whether the installed TensorRT takes precisions from the network alone: its builder has no flags for them."""
    return not has("BuilderFlag.FP16")


def build_plan(onnx: bytes, section: PlanSection, *, timing_cache: bytes, detailed: bool, progress: Progress) -> Built:
    """Build ``onnx`` as ``section`` says.

    The GPU's context must be current in this thread. Where TensorRT has builder flags for precisions they are set;
    where it types strongly, ``onnx`` must have the precision already.

    Args:
        timing_cache: what a former build returned, or nothing; one of another version or GPU is left aside.
        detailed: keep types and formats of layers in the plan, for the report; costs a little at each inference.
        progress: called from TensorRT's own threads.

    Raises:
        ModelError: the network cannot be read or built; the sentence ends with TensorRT's own words.
        BuildStoppedError: ``progress`` has answered False.
    """
    trt = bindings()
    complaint()
    builder = trt.Builder(logger())
    refuse_complaints("start its builder")
    network = _network(builder, onnx, section)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, section.workspace_mib * MIB)
    config.profiling_verbosity = (
        trt.ProfilingVerbosity.DETAILED if detailed else trt.ProfilingVerbosity.LAYER_NAMES_ONLY
    )
    _set_precision(config, section)
    _set_reach(config, section)
    _set_dla(builder, config, section)
    _set_profile(builder, config, network, section)
    _set_timing_cache(config, timing_cache)
    monitor = _monitor(progress)
    config.progress_monitor = monitor
    memory = builder.build_serialized_network(network, config)
    if monitor.stopped:
        raise BuildStoppedError(f"{section.onnx}: the build was stopped; nothing was written")
    if memory is None:
        raise ModelError(f"{section.onnx}: TensorRT {section.tensorrt} cannot build it: {complaint()}")
    plan = bytes(memory)
    return Built(plan, bytes(config.get_timing_cache().serialize()), _layers(plan, section))


def _network(builder: trt.Builder, onnx: bytes, section: PlanSection) -> trt.INetworkDefinition:
    trt = bindings()
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed if is_strongly_typed() else 0)
    parser = trt.OnnxParser(network, logger())
    if section.dla is not None and has("OnnxParserFlag.ADJUST_FOR_DLA"):
        parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
    if not parser.parse(onnx):
        faults = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ModelError(f"{section.onnx}: TensorRT cannot read this network: {faults or complaint()}")
    network.name = section.label
    return network


def _set_precision(config: trt.IBuilderConfig, section: PlanSection) -> None:
    """Allow what ``section`` asks for; without the flags the network's own types hold."""
    trt = bindings()
    if has("BuilderFlag.FP16"):
        if section.precision in ("fp16", "int8"):
            config.set_flag(trt.BuilderFlag.FP16)
        if section.precision == "bf16":
            config.set_flag(trt.BuilderFlag.BF16)
        if section.precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)


def _set_reach(config: trt.IBuilderConfig, section: PlanSection) -> None:
    """Which other versions and GPUs may run the plan."""
    trt = bindings()
    if section.version_compatible:
        # The lean runtime inside a plan would be code that is executed on load, which our runtime never allows.
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)
    if section.hardware_compatible == "ampere-plus":
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if section.hardware_compatible == "same-compute-capability":
        if not has("HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"):
            raise ModelError(
                f"{section.onnx}: TensorRT {section.tensorrt} knows no --hardware-compatible same-compute-capability; "
                "leave it out, or write ampere-plus"
            )
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY


def _set_dla(builder: trt.Builder, config: trt.IBuilderConfig, section: PlanSection) -> None:
    trt = bindings()
    if section.dla is None:
        return
    if section.dla >= builder.num_DLA_cores:
        raise ModelError(
            f"{section.onnx}: DLA core {section.dla} was asked for, and TensorRT {section.tensorrt} finds "
            f"{builder.num_DLA_cores} here; leave --dla out"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = section.dla
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _set_profile(
    builder: trt.Builder, config: trt.IBuilderConfig, network: trt.INetworkDefinition, section: PlanSection
) -> None:
    """One profile with a free first dimension."""
    if network.num_inputs != 1 or network.num_outputs != 1:
        raise ModelError(
            f"{section.onnx}: expected one input and one output, the network has {network.num_inputs} and "
            f"{network.num_outputs}; export the model with only those"
        )
    tensor: trt.ITensor = network.get_input(0)
    batch, *row = tuple(tensor.shape)
    if batch != -1 or -1 in row:
        raise ModelError(
            f"{section.onnx}: the input is {(batch, *row)}; export the model with a free first dimension and no other"
        )
    rows = section.profile
    profile = builder.create_optimization_profile()
    profile.set_shape(tensor.name, (rows.min, *row), (rows.opt, *row), (rows.max, *row))
    if config.add_optimization_profile(profile) < 0:
        raise ModelError(f"{section.onnx}: TensorRT refuses the batch profile {rows}: {complaint()}")


def _set_timing_cache(config: trt.IBuilderConfig, kept: bytes) -> None:
    """Begin with what was measured before; measurements of another GPU or version are refused by TensorRT itself."""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        complaint()
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _layers(plan: bytes, section: PlanSection) -> list[dict[str, Any]]:
    """The layers of ``plan``; empty for a version-compatible one, which this process may not load.

    Raises ``ModelError`` where any other does not load: TensorRT for RTX builds for GPUs that it cannot run on.
    """
    trt = bindings()
    engine = trt.Runtime(logger()).deserialize_cuda_engine(plan)
    if engine is None:
        said = complaint()
        if section.version_compatible:
            return []
        raise ModelError(f"{section.onnx}: TensorRT {section.tensorrt} has built it and cannot load it here: {said}")
    inspector = engine.create_engine_inspector()
    told = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return [layer if isinstance(layer, dict) else {"Name": str(layer)} for layer in told.get("Layers", [])]


def _monitor(progress: Progress) -> Any:
    """A progress monitor, called from TensorRT's own threads; ``stopped`` once ``progress`` has answered False."""
    bindings()
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the bindings carry no types
        def __init__(self) -> None:
            super().__init__()
            self.stopped = False
            self._lock = Lock()
            self._phases = Phases()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with self._lock:
                self._phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with self._lock:
                self._phases.step(phase_name, step)
                try:
                    self.stopped = self.stopped or not progress(self._phases.fraction, phase_name)
                except KeyboardInterrupt:  # must not unwind through TensorRT's own frames
                    self.stopped = True
                return not self.stopped

        def phase_finish(self, phase_name: str) -> None:
            with self._lock:
                self._phases.finish(phase_name)

    return Monitor()
