"""Builds small .tflite models, so that other people's kernels can be asked what one operator does.

A model is a list of tensors (with or without data) and a list of operators, written with the flatbuffers builder and
the schema of the `tflite` package. `run_tflm` runs one with TensorFlow Lite Micro's reference kernels.
"""

import numpy as np
import pytest

flatbuffers = pytest.importorskip("flatbuffers", reason="needs the packages of the test extra")
tflite = pytest.importorskip("tflite", reason="needs the packages of the test extra")

TYPES = {
    "float32": tflite.TensorType.FLOAT32,
    "int8": tflite.TensorType.INT8,
    "uint8": tflite.TensorType.UINT8,
    "int16": tflite.TensorType.INT16,
    "int32": tflite.TensorType.INT32,
    "int64": tflite.TensorType.INT64,
}
ACTIVATIONS = {"none": 0, "relu": 1, "relu_n1_to_1": 2, "relu6": 3}
PADDINGS = {"same": 0, "valid": 1}


class ModelBuilder:
    """Collects tensors and operators; `build` returns the bytes of the model."""

    def __init__(self):
        self.tensors, self.operators = [], []

    def tensor(self, shape, dtype="int8", *, scale=None, zero_point=0, data=None, dimension=0, name=None):
        """Add a tensor and return its index. scale: None, a number or a list (per channel along `dimension`)."""
        scales = None if scale is None else np.atleast_1d(np.asarray(scale, dtype=np.float32))
        zero_points = None if scale is None else np.broadcast_to(np.asarray(zero_point, dtype=np.int64), scales.shape)
        self.tensors.append((tuple(shape), dtype, scales, zero_points, data, dimension, name))
        return len(self.tensors) - 1

    def constant(self, array, **quantization):
        """Add a tensor that holds `array`."""
        array = np.asarray(array)
        return self.tensor(array.shape, array.dtype.name, data=array, **quantization)

    def operator(self, code, inputs, outputs, options=None, **fields):
        """Add an operator: code as in the schema ("CONV_2D"), options the table's name, fields by its fields' names."""
        self.operators.append((code, tuple(inputs), tuple(outputs), options, fields))

    def build(self, inputs, outputs, *, shape_signature=None):
        fb = flatbuffers.Builder(1024)
        buffers = [self._buffer(fb, None)]
        tensors = []
        for index, (shape, dtype, scales, zero_points, data, dimension, name) in enumerate(self.tensors):
            number = 0
            if data is not None:
                number = len(buffers)
                buffers.append(self._buffer(fb, np.ascontiguousarray(data).tobytes()))
            quantization = None
            if scales is not None:
                scale_vector, zero_vector = fb.CreateNumpyVector(scales), fb.CreateNumpyVector(np.array(zero_points))
                fields = {"Scale": scale_vector, "ZeroPoint": zero_vector, "QuantizedDimension": dimension}
                quantization = self._table(fb, "QuantizationParameters", fields)
            fields = {
                "Shape": fb.CreateNumpyVector(np.array(shape, dtype=np.int32)),
                "Type": TYPES[dtype],
                "Buffer": number,
                "Name": fb.CreateString(f"t{index}" if name is None else name),
            }
            if quantization is not None:
                fields["Quantization"] = quantization
            tensors.append(self._table(fb, "Tensor", fields))
        codes = sorted({code for code, *_ in self.operators})
        operators = [self._operator(fb, codes, *operator) for operator in self.operators]
        subgraph = self._table(fb, "SubGraph", {
            "Tensors": self._offsets(fb, tensors),
            "Inputs": fb.CreateNumpyVector(np.array(inputs, dtype=np.int32)),
            "Outputs": fb.CreateNumpyVector(np.array(outputs, dtype=np.int32)),
            "Operators": self._offsets(fb, operators),
        })  # fmt: skip
        code_tables = [self._operator_code(fb, code) for code in codes]
        model = self._table(fb, "Model", {
            "Version": 3,
            "OperatorCodes": self._offsets(fb, code_tables),
            "Subgraphs": self._offsets(fb, [subgraph]),
            "Description": fb.CreateString("made by a test"),
            "Buffers": self._offsets(fb, buffers),
        })  # fmt: skip
        fb.Finish(model, file_identifier=b"TFL3")
        return bytes(fb.Output())

    @staticmethod
    def _table(fb, name, fields):
        getattr(tflite, f"{name}Start")(fb)
        for field, value in fields.items():
            getattr(tflite, f"{name}Add{field}")(fb, value)
        return getattr(tflite, f"{name}End")(fb)

    @staticmethod
    def _offsets(fb, offsets):
        fb.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            fb.PrependUOffsetTRelative(offset)
        return fb.EndVector()

    def _buffer(self, fb, data):
        if data is None:
            return self._table(fb, "Buffer", {})
        fb.StartVector(1, len(data), 16)  # tensor data is read in place as int32
        fb.head -= len(data)
        fb.Bytes[fb.head : fb.head + len(data)] = data
        return self._table(fb, "Buffer", {"Data": fb.EndVector()})

    def _operator_code(self, fb, code):
        number = getattr(tflite.BuiltinOperator, code)
        fields = {"DeprecatedBuiltinCode": min(number, 127), "Version": 1, "BuiltinCode": number}
        return self._table(fb, "OperatorCode", fields)

    def _operator(self, fb, codes, code, inputs, outputs, options, fields):
        table = {}
        if options is not None:
            values = {
                field: fb.CreateNumpyVector(np.array(value, dtype=np.int32)) if isinstance(value, list) else value
                for field, value in fields.items()
            }
            table["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, options)
            table["BuiltinOptions"] = self._table(fb, options, values)
        vectors = {
            "Inputs": fb.CreateNumpyVector(np.array(inputs, dtype=np.int32)),
            "Outputs": fb.CreateNumpyVector(np.array(outputs, dtype=np.int32)),
        }
        return self._table(fb, "Operator", {"OpcodeIndex": codes.index(code), **vectors, **table})


def run_tflm(model, *inputs, arena=4_000_000):
    """The first output of a model, given as bytes, from TensorFlow Lite Micro's reference kernels.

    Inputs are given with their batch axis, which is part of the model. All inputs may be int8, uint8, int16 or int32.
    """
    runtime = pytest.importorskip("tflite_micro", reason="tflite_micro has wheels for Linux on x86-64 only").runtime
    interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena)
    for index, array in enumerate(inputs):
        interpreter.set_input(array, index)
    interpreter.invoke()
    return interpreter.get_output(0)
