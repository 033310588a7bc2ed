"""Convert a quantized model of another format into a model file; see docs/importing.md.

TensorFlow Lite models (.tflite) give the same integers to the last bit; ONNX models (.onnx) as ONNX Runtime's and
PyTorch's quantizers write them give integers that differ by 1 at most per layer. For float models see `quantize`.
"""

import argparse
import dataclasses
import json
import pathlib

from intsmooth.commands import options

SUMMARY = "convert a .tflite or .onnx model into a model file"
EXAMPLES = (
    "convert model.tflite -o model.h5",
    "convert model.onnx -o model.h5 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    "convert model.tflite -o model.h5 --json > report.json",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="the model to convert (.tflite or .onnx)")
    parser.add_argument("-o", "--out", metavar="FILE", help="model file to write (default: the model's name with .h5)")
    options.add_input_options(parser)
    parser.add_argument("--classes", metavar="FILE", help="a text file with a class name per line")
    parser.add_argument("--json", action="store_true", help="the report with all numbers, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Write the model file and print the report."""
    from intsmooth import h5file
    from intsmooth.convert.load import FORMATS, convert_model
    from intsmooth.errors import InputError

    path = pathlib.Path(arguments.model)
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path} is no model of another format: {' and '.join(FORMATS)} files can be converted")
    out = pathlib.Path(arguments.out or path.with_suffix(".h5").name)
    options.check_output(out, path)
    given = options.input_options(arguments)
    conversion = convert_model(path, classes=options.class_names(arguments.classes), **given)
    h5file.save(conversion.graph, out)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(conversion.report) | {"digest": conversion.graph.digest}, indent=1))
    else:
        print(f"{conversion.report.text()}\nmodel file: {out.resolve()}, digest {conversion.graph.digest}")
    return 0
