"""Is intsmooth faster than LiteRT (XNNPACK) on its home ground? Inference alone, on MLPerf Tiny's ResNet-8, int8.

    python bench/litert.py

Both run the same .tflite file, intsmooth through its importer. LiteRT gets the best of its batch sizes, and at two
threads the better of one interpreter with two threads and two interpreters with one; its input tensor is filled before
the clock starts. intsmooth gets int16 levels, 256 images at a time. Before timing, intsmooth's kernels must equal their
naive twins to the bit; XNNPACK requantizes in floats, so against it scores are correlated.
"""

import os
import pathlib

import numpy as np
from harness import (
    ROOT,
    Contender,
    Effort,
    Report,
    fastest,
    limit_contender,
    main,
    optional,
    require,
    take_turns,
    together,
)
from resnet import noisy_levels

from intsmooth.commands.bench import multiply_adds
from intsmooth.engine import Engine

MODEL = "mlperf_tiny_resnet8_int8.tflite"
BATCHES = (1, 4, 16, 64)
IMAGES = 256


def model_path() -> pathlib.Path:
    """The .tflite file, in the folder INTSMOOTH_SHARED, or `shared` beside the repository."""
    return pathlib.Path(os.environ.get("INTSMOOTH_SHARED", ROOT.parent / "shared")) / "models" / MODEL


def interpreter(path: pathlib.Path, threads: int, images: np.ndarray):
    """A LiteRT interpreter with XNNPACK, its input filled with int8 images (batch, H, W, C)."""
    from ai_edge_litert.interpreter import Interpreter

    made = Interpreter(str(path), num_threads=threads)
    index = made.get_input_details()[0]["index"]
    made.resize_tensor_input(index, images.shape)
    made.allocate_tensors()
    made.set_tensor(index, images)
    return made


def litert_contender(path: pathlib.Path, images: np.ndarray, threads: int, interpreters: int, batch: int) -> Contender:
    """`interpreters` of them share the threads; a unit is one batch on each."""
    made = [interpreter(path, threads // interpreters, images[:batch]) for _ in range(interpreters)]

    def work_of(one):
        def work(n: int) -> None:
            for _ in range(n):
                one.invoke()

        return work

    works = [work_of(one) for one in made]
    return Contender(works[0] if interpreters == 1 else together(works), interpreters * batch)


def question(effort: Effort) -> Report:
    report, path = Report("ResNet-8 of MLPerf Tiny against LiteRT"), model_path()
    if not path.is_file():
        report.text(f"Not measured: {MODEL} is not in the folder that INTSMOOTH_SHARED names.")
        return report
    if not (optional("tflite") and optional("flatbuffers")):
        report.text("Not measured: tflite and flatbuffers are not installed (the extra `tflite`).")
        return report
    from intsmooth.convert import tflite

    graph = tflite.load(path).graph
    levels = np.clip(noisy_levels(IMAGES, 32, seed=5), 0, 255)  # XNNPACK's input is int8, so noise is clipped here
    images, engines = (levels - 128).astype(np.int8), {threads: Engine(graph, threads=threads) for threads in (1, 2)}
    ours, twins = engines[2].forward(levels), Engine(graph, "numpy").forward(levels[:8])
    require((twins == ours[:8]).all(), "intsmooth's kernels differ from their twins")

    contenders, best = {}, {}
    for threads, engine in engines.items():
        contenders["intsmooth", threads] = Contender(
            lambda n, e=engine: [e.classify(levels) for _ in range(n)], IMAGES
        )
        contenders["limit", threads] = limit_contender(threads)
    if optional("ai_edge_litert"):
        theirs = interpreter(path, 2, images)
        theirs.invoke()
        scores = theirs.get_tensor(theirs.get_output_details()[0]["index"])
        correlation = np.corrcoef(scores.ravel(), ours.ravel())[0, 1]
        require(correlation > 0.95, f"scores correlate only {correlation:.4f} with LiteRT's")
        report.text(f"Scores of {IMAGES} noisy images: correlation {correlation:.5f}, the same integer in "
                    f"{100 * (scores == ours).mean():.1f} % of the scores, the same class in "
                    f"{100 * (scores.argmax(1) == ours.argmax(1)).mean():.1f} %.")  # fmt: skip
        for threads in engines:
            trial = {
                f"{count} interpreter{'s' * (count > 1)}, batch {batch}":
                    litert_contender(path, images, threads, count, batch)
                for count in sorted({1, threads}) for batch in BATCHES
            }  # fmt: skip
            best[threads] = fastest(trial, effort)
            contenders["LiteRT", threads] = trial[best[threads]]
    rates, work = take_turns(contenders, effort), multiply_adds(graph)
    rows = []
    for threads in (2, 1):
        for engine in ("intsmooth", "LiteRT"):
            if (engine, threads) not in rates:
                rows.append([engine, threads, "not installed", "", ""])
                continue
            rate, ours = rates[engine, threads], rates["intsmooth", threads]
            share = rate.scaled(100 * work).over(rates["limit", threads]).median
            ratio = "" if engine == "intsmooth" else ours.over(rate).text(".2f")
            name = engine if engine == "intsmooth" else f"{engine}, {best[threads]}"
            rows.append([name, threads, rate.text(), ratio, f"{share:.1f} %"])
    report.table(("engine", "threads", "images/s", "intsmooth is faster by", "of the limit"), rows)
    report.text(f"{work / 1e6:.1f} M multiply-adds per image; medians (quartiles) of {effort.rounds} rounds.")
    if ("LiteRT", 2) in rates:
        ratio = rates["intsmooth", 2].over(rates["LiteRT", 2])
        report.target("ResNet-8, inference alone, against LiteRT (XNNPACK)", ">= 1.1x", ratio.text(".2f", "x"),
                      ratio.median >= 1.1)  # fmt: skip
    return report


if __name__ == "__main__":
    main(question, __doc__)
