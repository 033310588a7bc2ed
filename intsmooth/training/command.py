"""intsmooth train RECIPE --data FOLDER --out MODEL.h5: train by a recipe and save the integer model.

Imports torch only when it runs, so that the command line can show its help without it.
"""

import argparse
import os
import pathlib
import time
from collections.abc import Callable

from intsmooth.errors import InputError, MissingExtraError, ResourceError
from intsmooth.records import Graph
from intsmooth.shipped import find_model

SUMMARY = "train an integer model by a recipe (needs torch)"
EXAMPLES = (
    "train digits-s0.25 --out digits.h5",
    "train cifar10-resnet20-s0.25 --data cifar10/ --out model.h5 --work run/",
    "train cifar10-resnet20-s0.25 --data cifar10/ --out model.h5 --work run/ --resume",
    "train my-recipe.ini --data cifar10/ --out mine.h5 --init run/float.pt",
    "train cifar10-resnet20-s0.5 --data cifar10/ --out again.h5 --init run/float.pt --from quantized",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("recipe", help="the name of a shipped recipe, or the path of an .ini file")
    parser.add_argument("--data", metavar="FOLDER", help="folder or archive of the data set (not needed for digits)")
    parser.add_argument("--out", metavar="FILE", required=True, help="the model file to write")
    parser.add_argument("--work", metavar="FOLDER", help="checkpoints and log (default: FILE with .work, or .smoke, appended)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint in the work folder")
    parser.add_argument("--init", metavar="FILE", help="start from a model file (.h5), a shipped model, or another run's float.pt")
    parser.add_argument("--from", dest="first", metavar="STAGE", help="begin with this stage: --init has been through those before")
    parser.add_argument("--compile", action="store_true", help="compile the network first: faster, needs a C++ compiler")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few images, to see that all works")


def main(arguments: argparse.Namespace) -> int:
    """What the command line calls with the parsed arguments."""
    run(
        arguments.recipe,
        arguments.data,
        arguments.out,
        arguments.work,
        resume=arguments.resume,
        init=arguments.init,
        fuse=arguments.compile,
        smoke=arguments.smoke,
        first=arguments.first,
    )
    return 0


def run(
    recipe: str | pathlib.Path,
    data: str | pathlib.Path | None,
    out: str | pathlib.Path,
    work: str | pathlib.Path | None = None,
    *,
    resume: bool = False,
    init: str | pathlib.Path | None = None,
    fuse: bool = False,
    smoke: bool = False,
    first: str | None = None,
    say: Callable[[str], None] = print,
) -> Graph:
    """Train by a recipe, save the model to `out`, and return its graph.

    work: folder for checkpoint.pt, float.pt and training.log (default: out + ".work"). resume: continue from there.
    init: a model file (.h5), a shipped model's name, or a float.pt whose weights are the start, instead of the recipe's
    init. fuse: compile with torch.compile, which needs a C++ compiler. first: the stage to begin with, for weights of init
    that have been through those before. say: takes each progress line, which also goes to the log.

    Raises MissingExtraError without torch, InputError for a bad recipe or checkpoint, DataError for missing data,
    ResourceError where a file cannot be written.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError("torch", "train", "training") from None
    from intsmooth import h5file
    from intsmooth.training.examples import load_examples
    from intsmooth.training.export import export
    from intsmooth.training.loop import noisy_accuracy, train
    from intsmooth.training.recipe import load_recipe

    if resume and init is not None:
        raise InputError("--resume continues a run and --init starts a new one: give one of them")
    folder = pathlib.Path(out).resolve().parent
    if not folder.is_dir() or pathlib.Path(out).is_dir() or not os.access(folder, os.W_OK):
        raise ResourceError(f"{out} cannot be written; a file in a folder that exists and may be written is required")
    plan = load_recipe(recipe)
    start = None if resume else _start(init or plan.init)
    if first is not None:
        if init is None and not resume:
            raise InputError(f"--from {first} goes on from weights of the stages before; name their file with --init")
        plan = plan.starting_with(first)
    examples = load_examples(plan, data)
    if smoke:
        plan, examples = plan.smoke(), examples.smoke()
    folder = pathlib.Path(work) if work is not None else pathlib.Path(f"{out}.{'smoke' if smoke else 'work'}")
    with _open_log(folder) as log:

        def tell(line: str) -> None:
            say(line)
            try:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
                log.flush()
            except OSError as error:
                raise ResourceError(f"{log.name} cannot be written ({error.strerror}); make room and --resume") from error

        tell(f"{plan.name}: {len(examples.training)} training images, {len(examples.validation)} for validation")
        done = train(plan, examples, folder, init=start, resume=resume, fuse=fuse, say=tell)
        accuracy = noisy_accuracy(done)
        facts = {
            **examples.facts,
            "dataset": plan.data,
            "sigma": str(float(plan.sigma)),
            "law": plan.law,
            "network": plan.network,
            "recipe": plan.text,
            "recipe name": plan.name,
            **({"started from": done.origin} if done.origin else {}),
            "noisy validation accuracy": f"{accuracy:.4f}",
        }
        graph = export(done.network, examples.classes, examples.levels, facts)
        h5file.save(graph, out)
        tell(f"{out}: noisy validation accuracy {accuracy:.4f}, trained in {done.seconds:.0f} s, digest {graph.digest}")
    return graph


def _start(init: str | pathlib.Path | None) -> pathlib.Path | None:
    """The file that --init or the recipe's init means: a path, or a shipped model's name."""
    if not init:
        return None
    return pathlib.Path(init) if pathlib.Path(init).suffix == ".pt" else find_model(init)


def _open_log(folder: pathlib.Path):
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / "training.log", "a", encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{folder} cannot be written ({error.strerror}); choose another --work") from error
