"""Who certifies with ResNet-20 fastest? Noise, inference and votes against PyTorch, inference against ONNX Runtime.

    python bench/resnet20.py

The same random weights everywhere (resnet.py), CIFAR-10 shapes, sigma 0.25. Outputs are compared before anything is
timed. PyTorch runs the sampling loop of Cohen, Rosenfeld and Kolter in batches of 1000, as published; channels_last,
bfloat16 and folded batch normalization are what its users could do without leaving PyTorch. ONNX Runtime gets its
quantized input ready-made, its best batch size, and at two threads the better of one session with two threads and two
sessions with one; intsmooth gets int16 levels and requantizes them itself.
"""

from fractions import Fraction

import numpy as np
from harness import (
    Contender,
    Effort,
    Report,
    Spread,
    fastest,
    limit_contender,
    main,
    optional,
    require,
    say,
    take_turns,
    together,
)
from resnet import SIGMA, float_scores, noisy_levels, quantize, random_resnet, real_values

from intsmooth.commands.bench import multiply_adds
from intsmooth.engine import Engine
from intsmooth.noise.law import noise_table
from intsmooth.noise.stream import image_digest, stream_key

BATCHES = (1, 4, 16, 64, 256)
CHECKED = 256  # images whose scores are compared
LOOP, INFERENCE, LIMIT = "loop", "inference", "limit"
Key = tuple[str, str, int]  # one of these three, the engine, its threads


class Setting:
    """The network in all its forms, and the inputs."""

    def __init__(self, quick: bool):
        self.net = random_resnet(8 if quick else 20)
        self.quantized = quantize(self.net)
        self.graph = self.quantized.graph
        self.levels = noisy_levels(CHECKED, self.net.size, seed=99)
        self.image = np.clip(self.levels[0], 0, 255)
        self.table = noise_table(Fraction(SIGMA) * 255)
        self.key = stream_key(bytes(32), image_digest(self.image), 0)
        self.engines = {threads: Engine(self.graph, threads=threads) for threads in (1, 2)}
        self.bytes = (self.engines[1].trace(self.levels)["input"].astype(np.int16) + 128).astype(np.uint8)

    def count_votes(self, engine: Engine, n: int) -> np.ndarray:
        return engine.count_votes(self.image, self.table, self.key, 0, n)


def check_ourselves(setting: Setting, rows: list) -> tuple[np.ndarray, np.ndarray]:
    """Compiled engine == naive twin, integers close to floats; returns (int8 scores, float scores)."""
    twin = Engine(setting.graph, "numpy")
    ours, reals = setting.engines[2].forward(setting.levels), float_scores(setting.net, setting.levels)
    require((twin.forward(setting.levels[:8]) == ours[:8]).all(), "intsmooth's kernels differ from their twins")
    votes = [setting.count_votes(engine, 16).tolist() for engine in (twin, *setting.engines.values())]
    require(votes[0] == votes[1] == votes[2], "votes depend on the backend or the threads")
    rows.append(compare("intsmooth int8", ours, "floats (NumPy)", reals, 0.97))
    return ours, reals


def compare(name: str, scores: np.ndarray, against: str, expected: np.ndarray, least: float) -> list[str]:
    """A row of the table of agreement; stops below a correlation of `least`."""
    correlation = np.corrcoef(scores.ravel(), expected.ravel())[0, 1]
    require(correlation >= least, f"{name} correlates only {correlation:.4f} with {against}, required {least}")
    same = (scores.argmax(1) == expected.argmax(1)).mean()
    return [name, against, f"{correlation:.6f}", f"{100 * same:.1f} %"]


def our_contenders(setting: Setting) -> dict[Key, Contender]:
    found = {}
    for threads, engine in setting.engines.items():
        found[LOOP, "intsmooth", threads] = Contender(lambda n, e=engine: setting.count_votes(e, n))
        found[INFERENCE, "intsmooth", threads] = Contender(
            lambda n, e=engine: [e.classify(setting.levels) for _ in range(n)], CHECKED
        )
        found[LIMIT, "", threads] = limit_contender(threads)
    return found


def torch_contenders(setting: Setting, reals: np.ndarray, rows: list) -> dict[Key, Contender]:
    """The loop in four variants and inference in two, after their scores are compared."""
    import peer_torch
    import torch

    images, x = (torch.from_numpy(real_values(levels)) for levels in (setting.levels, setting.image[None]))
    last, plain, found = torch.channels_last, torch.contiguous_format, {}

    def add(name: str, layout, kind=torch.float32, folded=False, least=0.99999, inference=False) -> None:
        model = peer_torch.TorchResNet(setting.net, folded).to(dtype=kind, memory_format=layout)
        rows.append(compare(name, peer_torch.scores(model, images, layout, kind), "floats (NumPy)", reals, least))

        def loop(n: int, threads: int) -> None:
            torch.set_num_threads(threads)
            peer_torch.count_votes(model, x[0], n * peer_torch.BATCH, layout=layout, kind=kind)

        def infer(n: int, threads: int) -> None:
            torch.set_num_threads(threads)
            for _ in range(n):
                peer_torch.scores(model, images, layout, kind)

        for threads in (1, 2):
            found[LOOP, name, threads] = Contender(lambda n, t=threads: loop(n, t), peer_torch.BATCH)
            if inference:
                found[INFERENCE, name, threads] = Contender(lambda n, t=threads: infer(n, t), CHECKED)

    add("torch float32, as published", plain, inference=True)
    add("torch float32, channels_last", last, inference=True)
    add("torch float32, channels_last, folded", last, folded=True)
    add("torch bfloat16, channels_last", last, torch.bfloat16, least=0.99)
    return found


def onnx_contenders(
    setting: Setting, ours: np.ndarray, reals: np.ndarray, rows: list, effort: Effort
) -> tuple[dict[Key, Contender], list[str]]:
    """int8 and float32 at their best settings, and what these are."""
    import peer_onnx

    reals_in = real_values(setting.levels)
    bytes_in = np.ascontiguousarray(setting.bytes.transpose(0, 3, 1, 2))
    models = {name: peer_onnx.integer_model(setting.net, setting.quantized, name) for name in peer_onnx.SHORTCUTS}
    for name, model in models.items():
        scores = peer_onnx.session(model, 1).run(None, {"x": bytes_in})[0].astype(int) - 128
        rows.append(compare(f"ONNX Runtime int8, {name}", scores, "intsmooth int8", ours, 0.98))
    whole = peer_onnx.float_model(setting.net)
    scores = peer_onnx.session(whole, 1).run(None, {"x": reals_in})[0]
    rows.append(compare("ONNX Runtime float32", scores, "floats (NumPy)", reals, 0.99999))

    def contender(model: bytes, data: np.ndarray, threads: int, sessions: int, batch: int) -> Contender:
        def work_of(session):
            parts = [data[start : start + batch] for start in range(0, CHECKED, batch)]
            return lambda n: [session.run(None, {"x": parts[i % len(parts)]}) for i in range(n)]

        works = [work_of(peer_onnx.session(model, threads // sessions)) for _ in range(sessions)]
        return Contender(works[0] if sessions == 1 else together(works), sessions * batch)

    found, notes = {}, []
    for label, choices, data in (("int8", models, bytes_in), ("float32", {"": whole}, reals_in)):
        for threads in (1, 2):
            trial = {
                f"{name or 'float32'}, {sessions} session{'s' * (sessions > 1)}, batch {batch}":
                    contender(model, data, threads, sessions, batch)
                for name, model in choices.items() for sessions in sorted({1, threads}) for batch in BATCHES
            }  # fmt: skip
            best = fastest(trial, effort)
            notes.append(f"{label} with {threads} thread{'s' * (threads > 1)}: {best}")
            found[INFERENCE, f"ONNX Runtime {label}", threads] = trial[best]
    return found, notes


def question(effort: Effort) -> Report:
    setting, report, rows = Setting(effort.quick), Report("ResNet-20 against PyTorch and ONNX Runtime"), []
    ours, reals = check_ourselves(setting, rows)
    contenders, missing, notes = our_contenders(setting), [], []
    if optional("torch"):
        contenders |= torch_contenders(setting, reals, rows)
    else:
        missing.append("torch")
    if optional("onnx") and optional("onnxruntime"):
        say("ONNX Runtime: trying shortcuts, sessions and batch sizes")
        found, notes = onnx_contenders(setting, ours, reals, rows, effort)
        contenders |= found
    else:
        missing.append("ONNX Runtime")
    say(f"{len(contenders)} contenders take turns")
    rates = take_turns(contenders, effort)
    work = multiply_adds(setting.graph)
    report.text(f"{work / 1e6:.1f} M multiply-adds per sample. Before timing, the scores of {CHECKED} noisy images are "
                "compared (random weights put classes close together, so the largest score may differ where scores "
                "hardly do); intsmooth's kernels equal their naive twins to the bit, votes included.")  # fmt: skip
    report.table(("engine", "compared with", "correlation of scores", "same class"), rows)
    report.text(f"Rates are medians (quartiles) of {effort.rounds} rounds.")
    for part, title in ((LOOP, "Noise, inference and vote, samples/s"), (INFERENCE, "Inference alone, images/s")):
        for threads in (2, 1):
            report.text(f"{title}, {threads} thread{'s' * (threads > 1)}:")
            report.table((part, "per second", "intsmooth is faster by", "of the limit"),
                         _rows(rates, part, threads, work, missing))  # fmt: skip
    one, two = (rates[LIMIT, "", threads].scaled(1e-9).text() for threads in (1, 2))
    report.text(f"The limit, measured in the same turns: {one} G multiply-adds/s on one core, {two} on two. "
                f"ONNX Runtime at its best: {'; '.join(notes) or 'not installed'}.")  # fmt: skip
    _targets(report, rates, work)
    return report


def _rows(rates: dict[Key, Spread], part: str, threads: int, work: int, missing: list[str]) -> list[list[str]]:
    """A row per engine, ours first; shares of the limit for integer engines."""
    ours, limit, rows = rates[part, "intsmooth", threads], rates[LIMIT, "", threads], []
    for (kind, engine, used), rate in rates.items():
        if (kind, used) == (part, threads):
            share = f"{100 * rate.scaled(work).over(limit).median:.1f} %" if "int" in engine else ""
            rows.append([engine, rate.text(), "" if engine == "intsmooth" else ours.over(rate).text(".2f"), share])
    return rows + [[name, "not installed", "", ""] for name in missing if part == INFERENCE or name == "torch"]


def _targets(report: Report, rates: dict[Key, Spread], work: int) -> None:
    loop, inference = rates[LOOP, "intsmooth", 2], rates[INFERENCE, "intsmooth", 2]
    for what, ours, peer, goal in (
        ("ResNet-20, noise + inference + vote, against Cohen's loop in torch as published", loop,
         (LOOP, "torch float32, as published", 2), 12),
        ("the same against the loop with channels_last", loop, (LOOP, "torch float32, channels_last", 2), 7),
        ("ResNet-20, inference alone, against ONNX Runtime int8", inference, (INFERENCE, "ONNX Runtime int8", 2), 1.8),
    ):  # fmt: skip
        if peer in rates:
            ratio = ours.over(rates[peer])
            report.target(what, f">= {goal}x", ratio.text(".2f", "x"), ratio.median >= goal)
    share = loop.scaled(100 * work).over(rates[LIMIT, "", 2])
    report.target("share of the integer limit of two cores, ResNet-20, noise and vote included", ">= 75 %",
                  share.text(".1f", " %"), share.median >= 75)  # fmt: skip
    ratio = loop.over(rates[LOOP, "intsmooth", 1])
    report.target("two threads against one", ">= 1.9x", ratio.text(".2f", "x"), ratio.median >= 1.9)


if __name__ == "__main__":
    main(question, __doc__)
