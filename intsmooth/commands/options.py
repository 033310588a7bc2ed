"""Options that several commands share, and what their values mean."""

import argparse
import contextlib
import pathlib
import sys

from intsmooth.datasets import NAMES, Dataset, open_dataset
from intsmooth.errors import InputError
from intsmooth.fixed_plan import BOUNDS
from intsmooth.progress import DownloadProgress
from intsmooth.records import Graph

MODEL_HELP = "a model (.h5, .tflite, quantized .onnx), or the name of a shipped model such as digits"


def check_output(out: str | pathlib.Path, *others: str | pathlib.Path) -> None:
    """InputError where writing `out` would destroy one of the other files of the command."""
    for other in others:
        if pathlib.Path(out).resolve() == pathlib.Path(other).resolve():
            raise InputError(f"{out} would be overwritten, which the command needs itself: give another name")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """--data, --split, --every, --max."""
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="digits, cifar10, caltech101, an archive or folder of these, a .npz, .npy or .h5 file, or a folder of "
        "images; by default the data set that the model was made for",
    )
    parser.add_argument("--split", help="part of the data set (default: test)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only images whose index is a multiple of N")
    parser.add_argument("--max", type=int, metavar="N", help="only the first N of these images")


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """--levels, --unit, --input-scale, --mean, --std: how levels become the input of an imported model."""
    parser.add_argument("--levels", type=_two_levels, metavar="L,H", help="of an imported model (default: 0,255)")
    parser.add_argument("--unit", type=int, metavar="N", help="levels per 1.0 (default: highest less lowest)")
    parser.add_argument("--input-scale", metavar="S", help="real value of a level, such as 1/255, of imported models")
    parser.add_argument("--mean", type=radii_list, metavar="M,...", help="per channel, subtracted before an ONNX model")
    parser.add_argument("--std", type=radii_list, metavar="S,...", help="per channel, divided by before an ONNX model")


def input_options(arguments: argparse.Namespace) -> dict:
    """What add_input_options declares and the user gave, as importers take it."""
    given = {name: getattr(arguments, name) for name in ("levels", "unit", "input_scale", "mean", "std")}
    return {name: value for name, value in given.items() if value is not None}


def open_model(arguments: argparse.Namespace) -> tuple[pathlib.Path, Graph]:
    """(path, graph) of the argument `model`, whatever its format; takes what add_input_options declares."""
    from intsmooth.convert.load import load_model
    from intsmooth.shipped import find_model

    path = find_model(arguments.model)
    return path, load_model(path, **input_options(arguments))


def class_names(path: str | None) -> tuple[str, ...] | None:
    """The lines of a text file, None where no file is given."""
    if path is None:
        return None
    try:
        return tuple(pathlib.Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot read {path}: {error}; give a text file with a class name per line") from None


def _two_levels(text: str) -> tuple[int, int]:
    try:
        low, high = (int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not two integers, such as 0,255") from error
    return low, high


def add_noise_options(parser: argparse.ArgumentParser) -> None:
    """--sigma, --law, --seed."""
    parser.add_argument(
        "--sigma", help="standard deviation of the noise in [0, 1] units (default: the model's training noise)"
    )
    parser.add_argument("--law", choices=("rounded", "discrete"), default="rounded", help="law of the integer noise")
    parser.add_argument("--seed", help="an integer or hexadecimal text (default: fresh, and recorded)")


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """--bound, --target-radius, --precision, --max-n, --largest-radius, --beta, --table: see docs/sampling.md."""
    group = parser.add_argument_group("how to sample", "by default --n samples for every image; docs/sampling.md")
    group.add_argument(
        "--bound", choices=BOUNDS, help="with --n: the bound on the class's probability (default: clopper-pearson)"
    )
    group.add_argument("--target-radius", metavar="R", help="certify this radius or nothing; stop when that is decided")
    group.add_argument(
        "--precision", metavar="D", help="the largest radius; stop when more samples would add less than this"
    )
    group.add_argument("--max-n", type=int, metavar="N", help="samples at most where a run may stop (default: 100000)")
    group.add_argument("--largest-radius", metavar="R", help="the largest radius; stop when this one is reached")
    group.add_argument(
        "--beta", metavar="B", help="where a run may stop: probability of giving up too soon (default: 0.01)"
    )
    group.add_argument("--table", metavar="FILE", help="certify by a table that `intsmooth table` wrote, integers only")


def sampling_options(arguments: argparse.Namespace) -> dict:
    """What add_sampling_options declares and the user gave, --n included, as `Smooth.certify` takes it."""
    from intsmooth.certificate_table import load_table

    names = ("n", "bound", "target_radius", "precision", "max_n", "largest_radius", "beta")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    return given if arguments.table is None else given | {"table": load_table(arguments.table)}


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """--backend, --threads, --batch-size."""
    parser.add_argument(
        "--backend", choices=("numba", "numpy"), default="numba", help="the same results, fast or plain"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="worker threads (default: one per processor)")
    parser.add_argument(
        "--batch-size", type=int, default=4096, metavar="N", help="samples counted at a time; changes no result"
    )


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """--workers, --dask, --mpi: who does the work, docs/scale.md; the results are the same."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="N processes of one thread each, instead of threads (or of --dask local)"
    )
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="the workers of a dask cluster: its scheduler's address, or local to start one"
    )
    parser.add_argument(
        "--mpi", action="store_true", help="the processes of: mpiexec -n N python -m mpi4py.futures -m intsmooth ..."
    )


def open_workers(arguments: argparse.Namespace):
    """A context with the executor that --workers, --dask and --mpi ask for, or None."""
    from intsmooth.executors import open_executor

    if arguments.threads is not None and (arguments.workers or arguments.dask or arguments.mpi):
        raise InputError("--threads is given beside --workers, --dask or --mpi, whose workers have one each: leave it out")
    return open_executor(arguments.workers, arguments.dask, arguments.mpi)


def data_name(arguments: argparse.Namespace, model: pathlib.Path, graph: Graph) -> str:
    """What --data means where it is not given: the model's own data set, by its facts or its file's name."""
    if arguments.data is not None:
        return arguments.data
    for name in (graph.facts.get("dataset", ""), model.stem.split("-")[0]):
        if name in NAMES:
            return name
    raise InputError(
        f"{model} does not say which data set it is for: give --data (a name of {', '.join(NAMES)}, or a path)"
    )


def select_data(arguments: argparse.Namespace, model: pathlib.Path, graph: Graph) -> Dataset:
    """The images that --data, --split, --every and --max ask for, labels in the model's order of classes."""
    name = data_name(arguments, model, graph)
    with DownloadProgress() as progress:
        dataset = open_dataset(name, split=arguments.split, shape=graph.input_shape, progress=progress)
    chosen = dataset.for_classes(graph.classes).select(arguments.every, arguments.max)
    if not len(chosen):
        raise InputError(f"--every {arguments.every} leaves none of the {len(dataset)} images of {dataset.name}")
    return chosen


def sigma_of(arguments: argparse.Namespace, graph: Graph) -> str:
    """--sigma, or what the model's facts say about its training noise."""
    sigma = arguments.sigma or graph.facts.get("sigma")
    if not sigma:
        raise InputError(
            "the model does not say which noise it was trained with: give --sigma, for example --sigma 0.25"
        )
    return sigma


def radii_list(text: str) -> tuple[float, ...]:
    """The numbers of a comma-separated list, for --radii."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no comma-separated list of numbers") from error


def announce_stopping_table() -> None:
    """Say so, once, if a stopping table must be computed before the first sample."""
    from intsmooth.stopping_cache import when_building

    text = "computing the stopping rule of this radius, some seconds; the next run finds it in the cache"
    when_building(lambda: print(text, file=sys.stderr, flush=True))


def announce_compilation(backend: str) -> None:
    """Say so, once, if kernels must be compiled before anything else can happen."""
    if backend == "numba":
        with contextlib.suppress(ModuleNotFoundError):
            from intsmooth.kernels.jit import when_compiling

            text = "compiling the kernels for this processor; the next run finds them in the cache"
            when_compiling(lambda: print(text, file=sys.stderr, flush=True))
