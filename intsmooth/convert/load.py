"""Models by path, whatever their format: the importer is picked by the file's suffix."""

import pathlib

from intsmooth import h5file
from intsmooth.convert.report import Conversion, describe
from intsmooth.errors import InputError, ModelError
from intsmooth.records import Graph

FORMATS = (".tflite", ".onnx")  # beside the package's own, .h5


def load_model(path: str | pathlib.Path, **options) -> Graph:
    """The Graph of a model file: .h5 as it is, .tflite and .onnx (quantized) converted.

    options: levels, unit, input_scale, classes and facts of `intsmooth.convert.tflite.load` and
    `intsmooth.convert.onnx.load`, and mean and std of the latter. Raises what these and `h5file.load` raise.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() in FORMATS:
        return convert_model(path, **options).graph
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{path} says itself what its input is: leave out {', '.join(given)}, or import its source")
    return h5file.load(path)


def convert_model(path: str | pathlib.Path, **options) -> Conversion:
    """The Conversion of a .tflite or .onnx file; of a model file (.h5) its graph, without origins."""
    path = pathlib.Path(path)
    try:
        return _convert(path, options)
    except ModelError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def _convert(path: pathlib.Path, options: dict) -> Conversion:
    suffix = path.suffix.lower()
    if suffix == ".tflite":
        from intsmooth.convert import tflite

        for name in ("mean", "std"):
            if options.pop(name, None) is not None:
                raise InputError(f"{name} is for ONNX models; a .tflite model takes input_scale alone")
        return tflite.load(path, **options)
    if suffix == ".onnx":
        from intsmooth.convert import onnx

        return onnx.load(path, **options)
    graph = h5file.load(path)
    return Conversion(graph, describe(graph, f"model file {path.name}", {}, ()))
