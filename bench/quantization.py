"""What does post-training quantization cost? The published float ResNet-20 as integers, over several calibration sets.

    python bench/quantization.py --cifar10 FOLDER [--sets 3] [--size 300] [--methods mse minmax]

FOLDER holds the official binary training batches of CIFAR-10, whose images calibrate, set after set without overlap.
Accuracy is that on every 20th test image (500), without and with bias correction. Weights and test images: folder
INTSMOOTH_SHARED, as importers.py says. Printed as a Markdown table. Needs the extras bench and test.
"""

import argparse
import itertools
import pathlib

import numpy as np
from harness import ROOT, say
from importers import MEAN, SHARED, STD, cifar10_test, session

from intsmooth.convert.quantize import METHODS, quantize
from intsmooth.datasets import open_dataset
from intsmooth.engine import Engine


def float_model() -> bytes:
    import sys

    sys.path.insert(0, str(ROOT / "tests"))
    from onnx_builder import resnet20

    with np.load(SHARED / "models" / "cifar10_resnet20_float.npz") as state:
        return resnet20({key.removeprefix("module."): state[key] for key in state.files})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar10", type=pathlib.Path, required=True, help="folder with the binary training batches")
    parser.add_argument("--sets", type=int, default=3, help="calibration sets per method")
    parser.add_argument("--size", type=int, default=300, help="images per set")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    found = cifar10_test()
    if found is None:
        parser.error(f"no test images in {SHARED}")
    (test, labels), content = found, float_model()
    reals = np.moveaxis((test / 255 - MEAN) / STD, -1, 1).astype(np.float32)
    exact = session(content).run(None, {"x": reals})[0]
    images = open_dataset(str(options.cifar10), split="train").select(1, options.sets * options.size)
    images = np.stack([item.image for item in images]).astype(np.int16)
    print("| ranges by | biases | calibration set | right, of 500 | float right | same class | signal/noise of scores |")
    print("| :-- | :-- | --: | --: | --: | --: | --: |")
    for method, correct in itertools.product(options.methods, (False, True)):
        biases = "corrected" if correct else "as in float"
        for number in range(options.sets):
            part = images[number * options.size : (number + 1) * options.size]
            graph = quantize(content, part, mean=MEAN, std=STD, method=method, correct=correct).graph
            tensor = graph.tensors[graph.output]
            scores = tensor.scale * (Engine(graph, threads=1).forward(test).astype(float) - tensor.zero_point)
            noise = 10 * np.log10(np.square(exact).sum() / np.square(scores - exact).sum())
            right, wanted = ((array.argmax(1) == labels).sum() for array in (scores, exact))
            same = 100 * np.mean(scores.argmax(1) == exact.argmax(1))
            counts = f"{number + 1} | {right} | {wanted}"
            print(f"| {method} | {biases} | {counts} | {same:.1f} % | {noise:.1f} dB |", flush=True)
            say(f"{method}, biases {biases}, set {number + 1} of {options.sets}")


if __name__ == "__main__":
    main()
