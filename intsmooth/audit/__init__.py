"""The audit: proofs, which anybody can run, of what the package claims about its own arithmetic.

    graph      every run-time tensor is an integer, and no scale is read
    overflow   no int32 value can leave its range
    code       no floating-point arithmetic in noise, inference and counting
    dynamic    no floating-point flag is raised while votes are counted
    equality   the compiled kernels equal their naive twins to the last bit
    noise      the noise follows its law
    certificate  by table, counts become a budget without a float; its entries are what they have to be

docs/audit.md says how each works and what it cannot show.
"""

import hashlib
import pathlib
import platform
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from intsmooth import __version__
from intsmooth.audit.finding import Finding, Report
from intsmooth.certificate_table import CertificateTable
from intsmooth.errors import InputError, ModelError, ResourceError
from intsmooth.noise.law import noise_table
from intsmooth.noise.stream import new_seed
from intsmooth.records import Graph

CHECKS = ("graph", "overflow", "code", "dynamic", "equality", "noise", "certificate")


def audit(
    graph: Graph,
    sigma: Fraction,
    law: str = "rounded",
    images: np.ndarray | None = None,
    seed: bytes | None = None,
    certificates: CertificateTable | None = None,
) -> Report:
    """All checks of a model on this machine.

    graph:  a validated Graph; sigma: noise parameter in [0, 1] units, exact; law: "rounded" or "discrete"
    images: integer levels (N, *input shape), a few of them; random ones where None
    seed:   32 bytes for everything random, fresh where None; the report names it
    certificates: the table that will be used; a small one, made here, where None

    Raises InputError for images that do not fit. A model that planning refuses, and a check that cannot be made for
    want of numba, fail in the report instead of raising.
    """
    seed = new_seed() if seed is None else seed
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    if images is None:
        images = rng.integers(graph.levels[0], graph.levels[1] + 1, (4, *graph.input_shape))
    if images.dtype.kind not in "iu" or images.shape[1:] != tuple(graph.input_shape) or not len(images):
        raise InputError(
            f"images are {images.dtype} of shape {images.shape}; integers of shape (N, "
            f"{', '.join(map(str, graph.input_shape))}) with N >= 1 are required"
        )
    table = noise_table(sigma * graph.unit, law)
    head = {
        "model": graph.digest,
        "noise": f"{law}, sigma {float(sigma):g} = {float(table.sigma):g} levels",
        "seed": seed.hex(),
        "images": f"{len(images)}",
        **_machine(),
    }
    return Report(head, _findings(graph, images.astype(np.int16), table, seed, rng, certificates))


def source_digest() -> str:
    """SHA-256, hex, over the names and contents of the package's Python files: the code that the findings speak of."""
    root = pathlib.Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _machine() -> dict[str, str]:
    """What the findings depend on besides the model."""
    head = {
        "intsmooth": __version__,
        "sources": source_digest(),
        "system": platform.system(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    try:
        import llvmlite.binding
        import numba
    except ModuleNotFoundError:
        return head | {"numba": "not installed"}
    from intsmooth.kernels.isa import ISA

    binding = llvmlite.binding
    head |= {"numba": numba.__version__, "llvmlite": llvmlite.__version__}
    llvm = ".".join(map(str, binding.llvm_version_info))
    return head | {"llvm": llvm, "cpu": binding.get_host_cpu_name(), "kernels": ISA}


def _findings(graph: Graph, images: np.ndarray, table, seed: bytes, rng, certificates) -> list[Finding]:
    from intsmooth.audit.equality import input_batch
    from intsmooth.audit.overflow import check_overflow
    from intsmooth.engine import Engine

    levels = input_batch(graph, images, table, rng)
    overflow = check_overflow(graph, levels)
    try:
        engine = Engine(graph, threads=1)
        warm_up(engine, images[0], table)
    except (ModelError, ImportError, ResourceError) as error:
        others = [name for name in CHECKS if name != "overflow"]
        return [
            overflow,
            *(Finding(name, "not checked", False, "nothing could be run", [str(error)]) for name in others),
        ]
    findings = {"overflow": overflow}
    for name, check in _checks(graph, engine, images, levels, table, seed, certificates).items():
        findings[name] = check()
    return [findings[name] for name in CHECKS]


def warm_up(engine, image: np.ndarray, table) -> None:
    """Have every compiled function of noise, inference and votes run once, so that it exists."""
    from intsmooth.noise.sampler import sample_noise

    key = np.zeros(8, np.uint32)
    engine.count_votes(image, table, key, 0, 1)
    engine.classify(image[None])
    engine.trace(image[None])
    sample_noise(table, key, 0, 1, image.size)


def _checks(graph, engine, images, levels, table, seed, certificates) -> dict[str, Callable[[], Finding]]:
    from intsmooth.audit.certificate import check_certificate
    from intsmooth.audit.code import check_code
    from intsmooth.audit.dynamic import check_dynamic
    from intsmooth.audit.equality import check_equality
    from intsmooth.audit.graph import check_graph
    from intsmooth.audit.noise import check_noise
    from intsmooth.smooth import Smooth

    def by_table() -> Finding:
        smooth = Smooth(graph, table.sigma / graph.unit, law=table.law, seed=seed, threads=1)
        smooth.engine = engine
        return check_certificate(smooth, images[0], certificates)

    return {
        "graph": lambda: check_graph(graph, levels),
        "code": lambda: check_code(engine),
        "dynamic": lambda: check_dynamic(engine, images[0], table, seed),
        "equality": lambda: check_equality(engine, images, table, seed),
        "noise": lambda: check_noise(table),
        "certificate": by_table,
    }
