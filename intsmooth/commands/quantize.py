"""Quantize a float ONNX model after training, with images that show what its activations hold; see docs/importing.md.

Prints what every layer lost against the float model. --sigma adds noise to the images, as certification will.
"""

import argparse
import dataclasses
import json
import pathlib

from intsmooth.commands import options

SUMMARY = "quantize a float .onnx model with calibration images"
EXAMPLES = (
    "quantize model.onnx --calibrate images.npz -o model.h5",
    "quantize model.onnx --calibrate cifar10 --every 100 --sigma 0.25 -o model.h5",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", help="a float model (.onnx)")
    parser.add_argument("--calibrate", required=True, metavar="DATA", help="images: what --data of certify takes")
    parser.add_argument("--split", help="part of the data set (default: train where it has one)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only images whose index is a multiple of N")
    parser.add_argument("--max", type=int, default=500, metavar="N", help="only the first N of these (default: 500)")
    parser.add_argument("-o", "--out", metavar="FILE", help="model file to write (default: the model's name with .h5)")
    options.add_input_options(parser)
    parser.add_argument("--classes", metavar="FILE", help="a text file with a class name per line")
    parser.add_argument("--sigma", default="0", help="noise that the model will meet, in [0, 1] units (default: 0)")
    parser.add_argument("--method", choices=("mse", "percentile", "minmax"), default="mse", help="choice of ranges")
    parser.add_argument("--no-correction", action="store_true", help="leave the biases as the float model has them")
    parser.add_argument("--seed", type=int, default=0, help="of the calibration's noise (default: 0)")
    parser.add_argument("--json", action="store_true", help="report and losses with all numbers, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Write the model file and print the report with the losses."""
    from intsmooth import h5file
    from intsmooth.convert.quantize import image_shape, quantize
    from intsmooth.datasets import has_parts, open_dataset

    out = pathlib.Path(arguments.out or pathlib.Path(arguments.model).with_suffix(".h5").name)
    options.check_output(out, arguments.model, arguments.calibrate)
    split = arguments.split or ("train" if has_parts(arguments.calibrate) else None)
    shape = image_shape(arguments.model)
    dataset = open_dataset(arguments.calibrate, split=split, shape=shape if len(shape) == 3 and None not in shape else None).select(arguments.every, arguments.max)
    images = dataset.stack()
    result = quantize(
        arguments.model,
        images,
        sigma=arguments.sigma,
        method=arguments.method,
        correct=not arguments.no_correction,
        classes=options.class_names(arguments.classes),
        seed=arguments.seed,
        **options.input_options(arguments),
    )
    h5file.save(result.graph, out)
    if arguments.json:
        report = dataclasses.asdict(result.conversion.report) | {
            "digest": result.graph.digest,
            "losses": [dataclasses.asdict(loss) for loss in result.losses],
            "agreement": result.agreement,
        }
        print(json.dumps(report, indent=1))
    else:
        print(f"{result.text()}\nmodel file: {out.resolve()}, digest {result.graph.digest}")
    return 0
