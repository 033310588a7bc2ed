"""Are imported TensorFlow Lite models the same integers as in other people's interpreters?

    python bench/tflite_models.py [--models FOLDER] [--images 20] [--output FILE]

For every .tflite model in the folder: imported here and run by the compiled engine, by TensorFlow Lite for
Microcontrollers (package tflite_micro: the reference kernels), and by LiteRT (package ai-edge-litert) three times: its
XNNPACK delegate, its optimised kernels without it, and its reference kernels. Printed as a Markdown table:

    tensors, differ      integers of all tensors compared with tflite_micro's, and how many of them differ
    LiteRT columns       per thousand output integers that differ, the largest difference, images with another decision

Half the images are uniform random levels, half are smooth ramps with noise; where the real images of a model lie beside
the models (CIFAR-10 for the two classifiers of it) they take the place of the uniform ones.
"""

import argparse
import os
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from intsmooth.convert import tflite  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402

SHARED = pathlib.Path(os.environ.get("INTSMOOTH_SHARED", ROOT.parent / "shared"))
LITERT_KERNELS = {"XNNPACK": "AUTO", "optimised": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
CIFAR10_CLASSIFIERS = ("mlperf_tiny_resnet8_int8", "tinymaix_cifar10_int8")
ARENA_BYTES = 60_000_000


def images_for(name, shape, count, seed=1):
    """int16 levels 0..255 of `shape`, real ones first where there are any."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape))
    ramp = np.linspace(0, 255, images[0].size).reshape(shape)
    images[::2] = np.clip(ramp + rng.normal(0, 20, images[::2].shape), 0, 255)
    real = SHARED / "data" / "cifar10" / "test_every_20th.npz"
    if name in CIFAR10_CLASSIFIERS and real.is_file():
        with np.load(real) as data:
            images[1::2] = data["images"][: count // 2]
    return images.astype(np.int16)


def as_int8(values):
    """int8 as it is, uint8 less 128."""
    return (values.astype(np.int16) - 128).astype(np.int8) if values.dtype == np.uint8 else values


def source_input(levels, dtype):
    """One image of levels as the source's input integers, with the batch."""
    return (levels if dtype == np.uint8 else levels - 128).astype(dtype)[np.newaxis]


def compare_with_tflm(path, conversion, images, traced):
    """(integers compared, how many differ) over all tensors that the two have in common."""
    from tflite_micro import runtime

    keep = runtime.InterpreterConfig.kPreserveAllTensors
    interpreter = runtime.Interpreter.from_file(str(path), arena_size=ARENA_BYTES, intrepreter_config=keep)
    dtype = interpreter.get_input_details(0)["dtype"]
    compared = differ = 0
    for number, image in enumerate(images):
        interpreter.set_input(source_input(image, dtype), 0)
        interpreter.invoke()
        for node in conversion.graph.nodes:
            index = conversion.origins[node.name].tensor
            if index is not None:
                theirs = as_int8(interpreter.GetTensor(index, 0)["tensor_data"]).ravel()
                compared += theirs.size
                differ += int((traced[node.output][number].ravel() != theirs).sum())
    return compared, differ


def litert_outputs(path, images, kernels):
    """int8 (N, features) from LiteRT with one of its sets of kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = getattr(OpResolverType, LITERT_KERNELS[kernels])
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outputs = []
    for image in images:
        interpreter.set_tensor(source["index"], source_input(image, source["dtype"]))
        interpreter.invoke()
        outputs.append(as_int8(interpreter.get_tensor(target["index"])).ravel())
    return np.array(outputs)


def difference(ours, theirs):
    """What the LiteRT columns show."""
    distance = np.abs(ours.astype(np.int32) - theirs)
    decisions = int((ours.argmax(axis=1) != theirs.argmax(axis=1)).sum())
    if not distance.any():
        return "equal"
    return f"{1000 * (distance > 0).mean():.1f} ‰, {distance.max()}, {decisions}"


def row(path, count):
    conversion = tflite.load(path)
    graph = conversion.graph
    images = images_for(path.stem, graph.input_shape, count)
    traced = Engine(graph, threads=1).trace(images)
    ours = traced[graph.output].reshape(count, -1)
    try:
        compared, differ = compare_with_tflm(path, conversion, images, traced)
        cells = [f"{compared:,}", f"{differ:,}"]
    except ImportError:
        cells = ["tflite_micro is not installed", ""]
    for kernels in LITERT_KERNELS:
        try:
            cells.append(difference(ours, litert_outputs(path, images, kernels)))
        except ImportError:
            cells.append("ai-edge-litert is not installed")
        except (RuntimeError, ValueError) as error:
            cells.append(f"refuses the model ({str(error).splitlines()[0][:60]})")
    return [path.stem, f"{len(graph.nodes)}", *cells]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=pathlib.Path, default=SHARED / "models", help="folder of .tflite files")
    parser.add_argument("--images", type=int, default=20, help="images per model (default 20)")
    parser.add_argument("--output", type=pathlib.Path, help="also write the table to this file")
    arguments = parser.parse_args()
    paths = sorted(arguments.models.glob("*.tflite"))
    if arguments.images < 2:
        parser.error("--images must be at least 2")
    if not paths:
        print(f"Not measured: there are no .tflite models in {arguments.models} (--models, or INTSMOOTH_SHARED).")
        return
    head = ["model", "nodes", "tensors", "differ", *(f"LiteRT {kernels}" for kernels in LITERT_KERNELS)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print("\n".join(lines), flush=True)
    for path in paths:
        lines.append("| " + " | ".join(row(path, arguments.images)) + " |")
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
