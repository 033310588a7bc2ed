"""The training loop: the stages of a recipe, one after the other, resumable at every epoch that was saved.

All randomness of an epoch comes from (recipe's seed, stage, epoch, part), so a resumed run continues as if it had never
stopped: on one processor, in the same bits.
"""

import math
import pathlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from intsmooth.errors import InputError
from intsmooth.training import checkpoint
from intsmooth.training.calibrate import PIECE, quantize, set_bounds
from intsmooth.training.examples import Examples, TrainingData, batches
from intsmooth.training.fakequant import QuantizedNetwork
from intsmooth.training.network import FloatNetwork, architecture
from intsmooth.training.noise import IntegerNoise, consistency_loss
from intsmooth.training.parallel import Parts
from intsmooth.training.precision import resolve
from intsmooth.training.recipe import SMOKE, Recipe, Stage
from intsmooth.training.warm_start import take_weights

_SAVE_SECONDS = 20.0
_SAY_SECONDS = 60.0
_CALIBRATION_IMAGES, _CALIBRATION_COPIES = 512, 4
_INFLUENCE_IMAGES = 2048


@dataclass
class Run:
    """A training run. network is the float network until the first quantized stage, the twin from then on.

    origin: the file whose weights were the start, with its digest; "" where training began from scratch.
    """

    recipe: Recipe
    data: TrainingData
    work: pathlib.Path
    device: torch.device
    say: Callable[[str], None]
    network: nn.Module
    fuse: bool = False
    stage: int = 0
    epoch: int = 0
    seconds: float = 0.0
    origin: str = ""

    @property
    def noise(self) -> IntegerNoise:
        return IntegerNoise(self.recipe.sigma * self.data.unit, self.recipe.law)

    def generator(self, *path: int) -> torch.Generator:
        """A generator on the CPU whose seed follows from the recipe's and a path of integers."""
        seed = np.random.SeedSequence([self.recipe.seed, *path]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed) >> 1)


def train(
    recipe: Recipe,
    data: TrainingData,
    work: pathlib.Path,
    *,
    init: pathlib.Path | None = None,
    resume: bool = False,
    fuse: bool = False,
    device: torch.device | None = None,
    say: Callable[[str], None] = print,
) -> Run:
    """Train by the recipe; the finished run, its network the fake-quantized twin.

    work: folder for checkpoints, made if missing. init: a float.pt or a model file (.h5) whose weights are the start.
    resume: go on from the checkpoint in `work`; without it there must be none, but for one of a smoke run. fuse: compile the networks (torch.compile), which needs a C++ compiler.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    network = FloatNetwork(architecture(recipe.network, data.image_shape, len(data.classes)), data.unit)
    run = Run(recipe, data, work, device, say, network, fuse)
    say(f"{recipe.name}: on {device.type} in {resolve(recipe.precision, device)}")
    if resume:
        _restore(run)
    else:
        _check_unused(work)
        if init is not None:
            run.origin = take_weights(run.network, init, _noisy_samples(run))
            say(f"{recipe.name}: starts from {run.origin}")
    run.network.to(device, memory_format=torch.channels_last)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else threads)
    try:
        while run.stage < len(recipe.stages):
            _train_stage(run, recipe.stages[run.stage])
            run.stage, run.epoch = run.stage + 1, 0
    finally:
        torch.set_num_threads(threads)
    return run


def _train_stage(run: Run, stage: Stage) -> None:
    if stage.quantized and isinstance(run.network, FloatNetwork):
        checkpoint.save(run.work / "float.pt", {"network": run.network.state_dict(), "recipe": run.recipe.text})
        run.network = _calibrated(run)
        run.say(f"{stage.name}: quantized, noisy accuracy {noisy_accuracy(run):.4f} on validation images")
    if stage.bounded and not run.epoch:
        recipe, noisy = run.recipe, _noisy_samples(run).to(run.device)
        set_bounds(run.network, noisy, run.data.levels, recipe.sigma * run.data.unit, recipe.margin, stage.bounded)
    training = run.data.training.to(run.device)
    batch = stage.batch or run.recipe.batch
    steps = stage.epochs * (len(training) // batch)
    if stage.epochs and not steps:
        raise InputError(f"recipe {run.recipe.name}: batch = {batch}, but there are only {len(training)} training images")
    optimizer = torch.optim.SGD(
        run.network.parameters(),
        lr=stage.learning_rate[0],
        momentum=run.recipe.momentum,
        weight_decay=run.recipe.weight_decay,
        nesterov=run.recipe.momentum > 0,
    )
    if run.epoch:
        optimizer.load_state_dict(checkpoint.load(run.work / "checkpoint.pt")["optimizer"])
    saved = time.monotonic()
    if not stage.epochs:  # nothing will be trained, but the network may just have been quantized
        _save(run, optimizer)
    # Parts keep the cores of a processor busy; a GPU is kept busy by large batches.
    with Parts(run.network, 1 if run.device.type == "cuda" else run.recipe.parts, run.fuse) as parts:
        for epoch in range(run.epoch, stage.epochs):
            start = time.monotonic()
            loss = _train_epoch(run, stage, epoch, training, parts, optimizer, steps)
            parts.merge_statistics()
            run.epoch = epoch + 1
            run.seconds += time.monotonic() - start
            run.say(
                f"{stage.name} {epoch + 1}/{stage.epochs}: loss {loss:.4f}, noisy accuracy {noisy_accuracy(run):.4f}, "
                f"{time.monotonic() - start:.1f} s"
            )
            if run.epoch == stage.epochs or time.monotonic() - saved > _SAVE_SECONDS:
                _save(run, optimizer)
                saved = time.monotonic()


def _train_epoch(
    run: Run,
    stage: Stage,
    epoch: int,
    training: Examples,
    parts: Parts,
    optimizer: torch.optim.Optimizer,
    steps: int,
) -> float:
    """One epoch; the mean loss."""
    recipe, noise, batch = run.recipe, run.noise, stage.batch or run.recipe.batch
    order = run.generator(run.stage, epoch)
    sources = [run.generator(run.stage, epoch, part + 1) for part in range(len(parts.copies))]
    if run.device.type == "cuda":
        sources = [torch.Generator(run.device).manual_seed(source.initial_seed()) for source in sources]
    for replica in parts.copies:
        replica.train()
    bfloat16 = resolve(recipe.precision, run.device) == "bfloat16"
    step = epoch * (len(training) // batch)
    shift = recipe.shift if stage.shift is None else stage.shift
    total, count, said = 0.0, 0, time.monotonic()
    for images, labels in batches(training, batch, order, shift, recipe.flip, recipe.zoom):
        pieces, piece_labels = images.chunk(len(sources)), labels.chunk(len(sources))

        def loss_of(forward: Callable, part: int, pieces=pieces, piece_labels=piece_labels) -> torch.Tensor:
            copies = pieces[part].repeat(stage.copies, 1, 1, 1).contiguous(memory_format=torch.channels_last)
            noisy = noise.add_to(copies, sources[part])
            with torch.autocast(run.device.type, torch.bfloat16, enabled=bfloat16):
                logits = forward(noisy)
            return consistency_loss(logits.float(), piece_labels[part], stage.copies, stage.consistency, stage.entropy)

        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, step / max(steps - 1, 1))
        total += parts.differentiate(loss_of)
        optimizer.step()
        if stage.largest:
            run.network.cut_weights(stage.largest)
        step, count = step + 1, count + 1
        if time.monotonic() - said > _SAY_SECONDS:
            said = time.monotonic()
            run.say(f"  {stage.name} {epoch + 1}: step {count} of {steps // stage.epochs}, loss {total / count:.4f}")
    total = float(total)
    if not math.isfinite(total):
        raise InputError(f"recipe {recipe.name}: the loss of stage {stage.name} is {total}; lower its learning_rate")
    return total / count


def learning_rate(stage: Stage, progress: float) -> float:
    """The rate at a fraction 0..1 of the stage: linear from the first to the peak, then a cosine to the last."""
    first, peak, last = stage.learning_rate
    if progress < stage.warmup:
        return first + (peak - first) * progress / stage.warmup
    fall = (progress - stage.warmup) / (1 - stage.warmup)
    return last + (peak - last) * (1 + math.cos(math.pi * min(fall, 1.0))) / 2


def noisy_accuracy(run: Run) -> float:
    """Accuracy on the validation images, each under one draw of noise that is the same at every call."""
    examples = run.data.validation
    generator = run.generator(1 << 20)
    network = run.network.eval()
    right = 0
    with torch.no_grad():
        for images, labels in zip(examples.images.split(500), examples.labels.split(500), strict=True):
            noisy = run.noise.add_to(images.permute(0, 3, 1, 2).float(), generator)
            right += int((network(noisy.to(run.device)).argmax(1).cpu() == labels).sum())
    return right / len(examples)


def _noisy_samples(run: Run, copies: int = 1, first: int = 0, count: int = _CALIBRATION_IMAGES) -> torch.Tensor:
    """Training images with noise, the same at every call: float levels (copies * N, C, H, W) on the CPU."""
    images = run.data.training.images[first : first + count].permute(0, 3, 1, 2).float()
    return run.noise.add_to(images.repeat(copies, 1, 1, 1), run.generator(1 << 21, first))


def _calibrated(run: Run) -> QuantizedNetwork:
    """The twin of the run's float network, its integers chosen on noisy training images."""
    recipe = run.recipe
    copies = _CALIBRATION_COPIES
    noisy = _noisy_samples(run, copies).to(run.device)
    starts = range(0, min(_INFLUENCE_IMAGES, len(run.data.training)), PIECE)
    more = (_noisy_samples(run, copies, first, PIECE).to(run.device) for first in starts)
    twin = quantize(run.network, noisy, run.data.levels, recipe.sigma * run.data.unit, recipe.margin, copies, more)
    return twin.to(memory_format=torch.channels_last)


def _save(run: Run, optimizer: torch.optim.Optimizer) -> None:
    content = {
        "recipe": run.recipe.text,
        "data": run.data.digest,
        "stage": run.stage,
        "epoch": run.epoch,
        "seconds": run.seconds,
        "origin": run.origin,
        "quantized": isinstance(run.network, QuantizedNetwork),
        "network": run.network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    checkpoint.save(run.work / "checkpoint.pt", content)


def _restore(run: Run) -> None:
    path = run.work / "checkpoint.pt"
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}; start without --resume, or name another folder")
    content = checkpoint.load(path)
    if not {"recipe", "data", "stage", "epoch", "seconds", "origin", "quantized", "optimizer"} <= content.keys():
        raise InputError(f"{path} holds weights, but not all that a run needs to go on; start from it with --init")
    differs = [what for what, here in (("recipe", run.recipe.text), ("data", run.data.digest)) if content[what] != here]
    if differs:
        raise InputError(
            f"{path} was made from another {' and other '.join(differs)}, or what was the same has been edited since; to go "
            f"on from its weights, start in another --work with --init {run.work / 'float.pt'}"
        )
    if content["quantized"]:
        run.network = QuantizedNetwork(run.network.architecture, run.network.unit)
    checkpoint.take_state(run.network, content, path, f"weights of {run.recipe.network}")
    run.stage, run.epoch, run.seconds, run.origin = (content[name] for name in ("stage", "epoch", "seconds", "origin"))
    run.say(f"resuming {run.recipe.name} in stage {run.recipe.stages[run.stage].name} after epoch {run.epoch}")


def _check_unused(work: pathlib.Path) -> None:
    """InputError where `work` holds the checkpoint of a run that would be overwritten."""
    path = work / "checkpoint.pt"
    if path.exists() and not str(checkpoint.load(path).get("recipe")).endswith(SMOKE):
        raise InputError(f"{path} is another run's: continue it with --resume, name another --work, or remove it first")
