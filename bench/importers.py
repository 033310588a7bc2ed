"""Imported models: the same integers as elsewhere? As accurate? As fast? A table with models in rows.

    python bench/importers.py [--cifar10 FOLDER] [--images 2000] [--out bench/IMPORTERS.md]

TensorFlow Lite models come from the folder `models` of INTSMOOTH_SHARED (default: `shared` beside the repository): their
tensors are compared with tflite_micro's and their outputs with LiteRT's (XNNPACK), and both are timed in turns. For
ONNX the published ResNet-20 that lies there, and a network of the tests, are quantized by ONNX Runtime, and layers,
classes and times compared with it. Accuracy is that on every 20th CIFAR-10 test image; with --cifar10, a folder with
the official binary training batches, classes are also compared on so many training images, which the calibration has
not seen. One thread each; peers get the better of their batch sizes. Needs the extras bench, tflite and test.
"""

import argparse
import pathlib
import sys
import tempfile
import time
import warnings

import numpy as np
from harness import FOLDER, ROOT, Contender, Effort, Report, fastest, machine_facts, optional, say, take_turns
from litert import litert_contender
from tflite_models import CIFAR10_CLASSIFIERS, SHARED, as_int8, compare_with_tflm, images_for, source_input

from intsmooth.commands.bench import multiply_adds
from intsmooth.convert import onnx, tflite
from intsmooth.convert.peers import trace
from intsmooth.engine import Engine

BATCHES = (1, 16, 64)
COMPARED = 20  # images on which all tensors of a TensorFlow Lite model are compared
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CALIBRATION = 200
LARGEST_GAP = 3  # steps between two scores that count as a near tie


def cifar10_test():
    """(images, labels) of every 20th test image, or None."""
    path = SHARED / "data" / "cifar10" / "test_every_20th.npz"
    if not path.is_file():
        return None
    with np.load(path) as data:
        return data["images"].astype(np.int16), data["labels"]


# TensorFlow Lite

def litert_scores(path, images):
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(model_path=str(path), num_threads=1)
    made.allocate_tensors()
    source, target = made.get_input_details()[0], made.get_output_details()[0]
    outputs = []
    for image in images:
        made.set_tensor(source["index"], source_input(image, source["dtype"]))
        made.invoke()
        outputs.append(as_int8(made.get_tensor(target["index"])).ravel())
    return np.array(outputs)


def litert_batches(path, images):
    """Contenders by batch; some models cannot be resized."""
    from ai_edge_litert.interpreter import Interpreter

    dtype = Interpreter(model_path=str(path)).get_input_details()[0]["dtype"]
    inputs, found = np.concatenate([source_input(image, dtype) for image in images]), {}
    for batch in BATCHES:
        try:
            contender = litert_contender(path, np.resize(inputs, (batch, *inputs.shape[1:])), 1, 1, batch)
            contender.work(1)
            found[batch] = contender
        except (RuntimeError, ValueError):
            continue
    return found


def own_contender(graph, images):
    engine, batch = Engine(graph, threads=1), np.resize(images, (64, *graph.input_shape)).astype(np.int16)
    return Contender(lambda n: [engine.classify(batch) for _ in range(n)], len(batch))


def timed(ours, theirs, effort) -> list[str]:
    """Cells: ours, theirs, by how much we are faster."""
    if not theirs:
        return [f"{take_turns({0: ours}, effort)[0].median:,.0f}", "", ""]
    best = fastest(theirs, effort)
    rates = take_turns({"ours": ours, "theirs": theirs[best]}, effort)
    ratio = rates["ours"].over(rates["theirs"])
    return [f"{rates['ours'].median:,.0f}", f"{rates['theirs'].median:,.0f} (batch {best})", ratio.text(".2f")]


def tflite_row(path, test, effort):
    conversion = tflite.load(path)
    graph, name = conversion.graph, path.stem
    images = images_for(name, graph.input_shape, COMPARED)
    traced = Engine(graph, threads=1).trace(images)
    ours, cells = traced[graph.output].reshape(len(images), -1), [name, f"{multiply_adds(graph) / 1e6:.2f} M"]
    if optional("tflite_micro"):
        compared, differ = compare_with_tflm(path, conversion, images, traced)
        cells.append(f"equal, {compared:,}" if not differ else f"**{differ:,} of {compared:,} differ**")
    else:
        cells.append("not installed")
    litert, theirs = optional("ai_edge_litert"), None
    if not litert:
        cells.append("not installed")
    else:
        try:
            theirs = litert_scores(path, images)
        except (RuntimeError, ValueError):
            litert = None
            cells.append("refuses the model")
    if theirs is not None:
        gap = np.abs(ours.astype(int) - theirs)
        cells.append("equal" if not gap.any() else f"{100 * (gap > 0).mean():.1f} %, by {gap.max()} at most")
    if name in CIFAR10_CLASSIFIERS and test is not None:
        images, labels = test
        right = [np.mean(Engine(graph, threads=1).classify(images) == labels)]
        right += [np.mean(litert_scores(path, images).argmax(1) == labels)] if litert else []
        cells.append(" / ".join(f"{100 * share:.1f} %" for share in right))
    else:
        cells.append("")
    return cells + timed(own_contender(graph, images), litert_batches(path, images) if litert else {}, effort)


# ONNX

def onnx_models(folder, calibration):
    """(name, file) of models that ONNX Runtime's quantizer has made; builders and quantizer are those of the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    from onnx_builder import resnet20, small_network
    from onnx_quantizer import optimize, quantized

    with np.load(SHARED / "models" / "cifar10_resnet20_float.npz") as state:
        (folder / "plain.onnx").write_bytes(resnet20({key.removeprefix("module."): state[key] for key in state.files}))
    optimize(folder / "plain.onnx", folder / "folded.onnx")
    reals = (calibration / 255 - MEAN) / STD * 255
    resnet = (folder / "folded.onnx").read_bytes()
    small = small_network(shape=(3, 32, 32), normalization=False, pool="MaxPool")
    for title, content in (("ResNet-20", resnet), ("depthwise and gated network, random weights", small)):
        for form in ("QDQ", "QOperator"):
            for unsigned in (0, 1):
                kind = "uint8, weights of 7 bits" if unsigned else "int8"
                yield f"{title}, {form}, {kind}", quantized(folder, content, form, unsigned, 1, levels=reals)


def session(path, optimized=True):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def agreement(conversion, path, levels):
    """(classes equal, images, largest gap in steps between their and our class where they differ)."""
    graph, engine = conversion.graph, Engine(conversion.graph, threads=1)
    ours, theirs = [], []
    for start in range(0, len(levels), 250):
        part = levels[start : start + 250]
        ours.append(engine.forward(part))
        theirs.append(trace("onnxruntime", path, conversion, part, outputs_only=True)[graph.output])
    ours, theirs = np.concatenate(ours).argmax(1), np.concatenate(theirs).astype(int)
    rows, other = np.arange(len(levels)), theirs.argmax(1)
    gaps = (theirs[rows, other] - theirs[rows, ours])[ours != other]
    return int((ours == other).sum()), len(levels), int(gaps.max(initial=0))


def layers(conversion, path, levels):
    """(largest difference, share of elements that differ) of our operators on their inputs."""
    from onnx_quantizer import layer_steps

    steps = layer_steps(conversion, trace("onnxruntime", path, conversion, levels))
    gaps = np.concatenate([gap.ravel() for gap in steps.values()])
    return int(gaps.max()), float(np.mean(gaps > 0)), len(steps)


def onnx_row(name, path, test, training, effort):
    conversion = onnx.load(path, mean=MEAN, std=STD)
    images, labels = test
    largest, share, count = layers(conversion, path, images[:16])
    cells = [name, f"{largest} at most, {1e6 * share:.0f} ppm, {count} layers"]
    for levels in (images, training):
        if levels is None:
            cells.append("")
            continue
        same, total, gap = agreement(conversion, path, levels)
        cells.append(f"{100 * same / total:.2f} %" + (f" ({total - same}, gap {gap})" if same < total else ""))
    ours = np.mean(Engine(conversion.graph, threads=1).classify(images) == labels)
    reals = np.moveaxis((images / 255 - MEAN) / STD, -1, 1).astype(np.float32)
    fast = session(path)
    entry = fast.get_inputs()[0].name
    scores = np.concatenate([fast.run(None, {entry: reals[i : i + 50]})[0] for i in range(0, len(reals), 50)])
    real = "ResNet-20" in name
    cells.append(f"{100 * ours:.1f} % / {100 * np.mean(scores.argmax(1) == labels):.1f} %" if real else "")

    def contender(batch):
        return Contender(lambda n: [fast.run(None, {entry: reals[:batch]}) for _ in range(n)], batch)

    return cells + timed(own_contender(conversion.graph, images), {b: contender(b) for b in BATCHES}, effort)


def question(effort: Effort, cifar10=None, count=2000) -> Report:
    report, test = Report("Imported models"), cifar10_test()
    paths = sorted((SHARED / "models").glob("*.tflite"))
    rows = []
    for path in paths:
        say(path.stem)
        rows.append(tflite_row(path, test, effort))
    report.text("TensorFlow Lite. Equality: integers of all tensors of 20 images, compared with tflite_micro's. Outputs "
                "of LiteRT's XNNPACK that differ, and by how many steps. Accuracy: ours / LiteRT's.")  # fmt: skip
    report.table(("model", "multiply-adds", "tflite_micro", "LiteRT (XNNPACK)", "accuracy", "images/s", "LiteRT",
                  "faster by"), rows or [["no models found", *[""] * 7]])  # fmt: skip
    weights = SHARED / "models" / "cifar10_resnet20_float.npz"
    if not (optional("onnxruntime") and test is not None and weights.is_file()):
        report.text("ONNX: not measured, onnxruntime, the weights or the images are missing.")
        return report
    training = None
    if cifar10 is not None:
        from intsmooth.datasets import open_dataset

        chosen = open_dataset(str(cifar10), split="train").select(1, count + CALIBRATION)
        training = np.stack([item.image for item in chosen]).astype(np.int16)
    calibration = test[0][:CALIBRATION] if training is None else training[-CALIBRATION:]
    training = None if training is None else training[:count]
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, path in onnx_models(pathlib.Path(folder), calibration):
            say(name)
            rows.append(onnx_row(name, path, test, training, effort))
    report.text("ONNX, quantized by ONNX Runtime, per channel. Layers: our operators on ONNX Runtime's own inputs, "
                "difference in steps and share of integers that differ (16 images). Classes: share of images with equal "
                "classes, in brackets how many are not and how many steps the two scores of such an image are apart. "
                "Accuracy and speed: ours / ONNX Runtime with all optimizations.")  # fmt: skip
    report.table(("model", "layers", "classes, 500 test images", f"classes, {count} training images", "accuracy",
                  "images/s", "ONNX Runtime", "faster by"), rows)  # fmt: skip
    return report


def _given(options: argparse.Namespace) -> str:
    """The options that the figures depend on, for the head of the results."""
    images = f" --cifar10 FOLDER --images {options.images}" if options.cifar10 else ""
    return f"{images} --rounds {options.rounds} --seconds {options.seconds:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=pathlib.Path, help="folder with the binary training batches")
    parser.add_argument("--images", type=int, default=2000, help="training images to compare classes on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / "IMPORTERS.md")
    options = parser.parse_args()
    facts, start = machine_facts(), time.monotonic()
    report = question(Effort(options.rounds, options.seconds), options.cifar10, options.images)
    table = ["| machine | |", "| :-- | :-- |", *(f"| {name} | {value} |" for name, value in facts.items())]
    minutes = (time.monotonic() - start) / 60
    head = f"Written by `python bench/importers.py{_given(options)}`, one thread each, in {minutes:.1f} minutes."
    if float(facts["load"]) > 0.5:
        head += f" **Other programs were running (load average {facts['load']}): the speeds are unreliable.**"
    text = "\n\n".join(["# Imported models", head, "\n".join(table), *report.blocks]) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
