"""Others' engines as witnesses: they run the source of a converted model, and their tensors are laid out as ours.

They are given the integers of the source's input, so that all compute from the same numbers. TensorFlow Lite Micro
(package `tflite_micro`) runs .tflite models, ONNX Runtime (package `onnxruntime`) .onnx ones, its optimizations off.
"""

import pathlib

import numpy as np

from intsmooth.convert.onnx_file import import_onnx
from intsmooth.convert.report import Conversion
from intsmooth.engine import Engine
from intsmooth.errors import InputError, MissingExtraError
from intsmooth.records import Graph, Tensor
from intsmooth.reference.engine import TWINS

ENGINES = ("numba", "numpy", "tflite_micro", "onnxruntime")
_ARENA = 2**26  # bytes for all tensors of a model in TensorFlow Lite Micro


def trace(
    engine: str, path: str | pathlib.Path, conversion: Conversion, levels: np.ndarray, outputs_only: bool = False
) -> dict[str, np.ndarray]:
    """Tensors of `engine` by our names: int8 (N, *shape), for int16 levels (N, *input shape).

    engine: one of ENGINES. path: the file that `conversion` was made from; only others' engines read it. Tensors that
    the source does not have (helpers of the conversion) are left out of their results. outputs_only: of others' engines
    the scores alone, for many images.
    Raises InputError where the engine cannot run such a file, MissingExtraError where it is not installed.
    """
    if engine in ("numba", "numpy"):
        return Engine(conversion.graph, backend=engine).trace(levels)
    run, suffix = {"tflite_micro": (_tflite_micro, ".tflite"), "onnxruntime": (_onnxruntime, ".onnx")}[engine]
    path = pathlib.Path(path)
    if path.suffix.lower() != suffix:
        raise InputError(f"{engine} runs {suffix} models, not {path.name}; the others of {', '.join(ENGINES)} may")
    entry = next(node for node in conversion.graph.nodes if conversion.origins[node.name].tensor is not None)
    graph = conversion.graph
    first = _first_integers(graph, levels, entry.output)
    sources = {node.output: conversion.origins[node.name].tensor for node in graph.nodes}
    sources = {name: source for name, source in sources.items() if source is not None}
    if outputs_only:
        sources = {name: source for name, source in sources.items() if name == graph.output}
    return {entry.output: first, **run(path, graph, sources, first, graph.tensors[entry.output])}


def _first_integers(graph: Graph, levels: np.ndarray, wanted: str) -> np.ndarray:
    """The tensor `wanted` by the twins of the nodes up to it, which form a chain."""
    values = {graph.input: levels}
    for node in graph.nodes:
        if all(name in values for name in node.inputs):
            values[node.output] = TWINS[node.op](graph, node, *(values[name] for name in node.inputs))
        if wanted in values:
            break
    return values[wanted]


def _tflite_micro(path, graph: Graph, sources, first: np.ndarray, entry: Tensor) -> dict[str, np.ndarray]:
    try:
        from tflite_micro import runtime
    except ImportError:
        raise MissingExtraError("the package tflite_micro", "test", "running TensorFlow Lite Micro") from None
    keep = runtime.InterpreterConfig.kPreserveAllTensors
    interpreter = runtime.Interpreter.from_file(str(path), arena_size=_ARENA, intrepreter_config=keep)
    unsigned = interpreter.get_input_details(0)["dtype"] == np.uint8
    results: dict[str, list] = {name: [] for name in sources}
    for image in first:
        values = (image.astype(np.int16) + 128).astype(np.uint8) if unsigned else image
        interpreter.set_input(values[np.newaxis], 0)
        interpreter.invoke()
        for name, index in sources.items():
            found = interpreter.GetTensor(index, 0)["tensor_data"]
            results[name].append(_ours(np.asarray(found)[np.newaxis], graph.tensors[name])[0])
    return {name: np.stack(arrays) for name, arrays in results.items()}


def _onnxruntime(path, graph: Graph, sources, first: np.ndarray, entry: Tensor) -> dict[str, np.ndarray]:
    onnx = import_onnx("running ONNX Runtime")
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("the package onnxruntime", "bench", "running ONNX Runtime") from None
    proto = onnx.ModelProto.FromString(pathlib.Path(path).read_bytes())
    known = {item.name for item in proto.graph.output}
    for name in sources.values():
        if name not in known and name not in {item.name for item in proto.graph.input}:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
            known.add(name)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    values = np.moveaxis(first, -1, 1) if first.ndim == 4 else first
    if given.type == "tensor(float)":
        values = (values.astype(np.float32) - np.float32(entry.zero_point)) * np.float32(entry.scale)
    elif given.type == "tensor(uint8)":
        values = (values.astype(np.int16) + 128).astype(np.uint8)
    wanted = [item.name for item in session.get_outputs()]
    batch = given.shape[0] if isinstance(given.shape[0], int) else len(values)
    runs = []
    for start in range(0, len(values), batch):
        part = values[start : start + batch]
        short = batch - len(part)
        part = np.concatenate([part, np.repeat(part[-1:], short, axis=0)])
        runs.append([array[: batch - short] for array in session.run(wanted, {given.name: part})])
    found = dict(zip(wanted, (np.concatenate(parts) for parts in zip(*runs, strict=True)), strict=True))
    turned = {name: np.moveaxis(array, 1, -1) if array.ndim == 4 else array for name, array in found.items()}
    return {name: _ours(turned[source], graph.tensors[name]) for name, source in sources.items() if source in turned}


def _ours(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Another engine's batch of a tensor as int8 in our layout; reals are quantized as our tensor is."""
    values = values.reshape(len(values), *tensor.shape)
    if values.dtype.kind == "f":
        steps = np.rint(values / np.float32(tensor.scale)) + tensor.zero_point
        return np.clip(steps, -128, 127).astype(np.int8)
    if values.dtype == np.uint8:
        return (values.astype(np.int16) - 128).astype(np.int8)
    return values.astype(np.int32) if values.dtype == np.int64 else values
