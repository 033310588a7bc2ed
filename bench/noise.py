"""How long does a coordinate of noise take, and what do the usual generators take for theirs?

    python bench/noise.py [--sigma 63.75] [--coordinates 3072] [--samples 400] [--repeats 15] [--json FILE]

One thread. Every row fills the same number of coordinates; rows are run in turn, `repeats` times, and the median and
the quartiles of ns per coordinate are printed. Before anything is timed, the compiled sampler's integers are compared
with its naive twin's and the goodness-of-fit checks are run on them. The peers are what others use to add noise: a
float normal (NumPy's ziggurat, torch), the same rounded to integer levels, and NumPy's plain uniform integers, which
are not Gaussian and serve as a floor. None of them is a cryptographic stream, keyed per sample, or exact in law.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from fractions import Fraction
from importlib.metadata import version

import numpy as np

from intsmooth.kernels.isa import ISA
from intsmooth.kernels.sampler import SCRATCH_WORDS, fill_noise, fill_samples
from intsmooth.noise.law import noise_table
from intsmooth.noise.sampler import sample_noise, table_arrays
from intsmooth.noise.selftest import goodness_of_fit, known_answers
from intsmooth.noise.stream import stream_key


def verify(sigma, key):
    """Stop unless the compiled sampler equals its twin and fits its law, for both laws."""
    checks = [known_answers("numba")]
    for law in ("rounded", "discrete"):
        table = noise_table(sigma, law)
        noise = sample_noise(table, key, 2**32 - 300, 600, 3072)
        if not (noise[:50] == sample_noise(table, key, 2**32 - 300, 50, 3072, "numpy")).all():
            sys.exit("the compiled sampler differs from its twin: nothing is timed")
        checks += goodness_of_fit(noise, table)
    failed = [check.name for check in checks if not check.passed]
    if failed:
        sys.exit(f"nothing is timed, these checks failed: {', '.join(failed)}")
    print(f"checked: compiled == twin, {len(checks)} known-answer and goodness-of-fit checks passed")


def our_rows(sigma, key, samples, n):
    """Rows of this package: name -> function of no arguments that fills samples * n coordinates."""
    noise = np.empty((samples, n), dtype=np.int16)
    row = np.empty(-(-n // 16) * 16, dtype=np.int16)
    scratch = np.empty(SCRATCH_WORDS, dtype=np.uint32)
    few = max(1, samples // 20)

    def compiled(law):
        arrays = table_arrays(noise_table(sigma, law))
        fill_noise(row, scratch, n, key, np.uint64(0), *arrays)
        return lambda: fill_samples(noise, scratch, row, n, key, np.uint64(0), *arrays)

    def naive():
        for _ in range(samples // few):
            sample_noise(noise_table(sigma), key, 0, few, n, "numpy")

    return {
        "intsmooth, rounded": compiled("rounded"),
        "intsmooth, discrete": compiled("discrete"),
        "intsmooth, backend numpy": naive,
    }


def numpy_rows(sigma, samples, n):
    scale = float(sigma)
    generator = np.random.Generator(np.random.PCG64(1))
    philox = np.random.Generator(np.random.Philox(1))
    out = np.empty((samples, n), dtype=np.float32)
    return {
        "numpy uniform int16 (PCG64)": lambda: generator.integers(-32768, 32768, (samples, n), dtype=np.int16),
        "numpy normal float32 (PCG64)": lambda: generator.standard_normal(out=out, dtype=np.float32),
        "numpy normal float64 (PCG64)": lambda: generator.normal(0, scale, (samples, n)),
        "numpy normal float64 (Philox)": lambda: philox.normal(0, scale, (samples, n)),
        "numpy normal, rounded to int16": lambda: np.rint(generator.normal(0, scale, (samples, n))).astype(np.int16),
    }


def torch_rows(sigma, samples, n):
    try:
        import torch
    except ImportError:
        print("torch is not installed: its rows are left out (python -m pip install 'intsmooth[bench]')")
        return {}
    torch.set_num_threads(1)
    scale = float(sigma)
    out = torch.empty(samples, n)
    return {
        "torch.randn": lambda: torch.randn(samples, n, out=out),
        "torch.randn * sigma": lambda: torch.randn(samples, n, out=out).mul_(scale),
        "torch.randn, rounded to int16": lambda: torch.randn(samples, n).mul_(scale).round_().to(torch.int16),
    }


def measure(rows, coordinates, repeats):
    """Interleaved: each row once per repeat, in turn. Returns name -> sorted ns per coordinate."""
    for run in rows.values():
        run()
    times = {name: [] for name in rows}
    for _ in range(repeats):
        for name, run in rows.items():
            begin = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - begin) * 1e9 / coordinates)
    return {name: sorted(values) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sigma", type=Fraction, default=Fraction("63.75"), help="levels, exact (63.75 or 255/4)")
    parser.add_argument("--coordinates", type=int, default=3072, help="per sample")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    key = stream_key(bytes(32), bytes(32), 0)
    verify(options.sigma, key)
    sizes = options.samples, options.coordinates
    rows = our_rows(options.sigma, key, *sizes) | numpy_rows(options.sigma, *sizes) | torch_rows(options.sigma, *sizes)
    times = measure(rows, options.samples * options.coordinates, options.repeats)
    print(
        f"{platform.processor() or platform.machine()}, {ISA}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, numba {version('numba')}; sigma = {options.sigma} levels, "
        f"{options.samples} x {options.coordinates} coordinates, {options.repeats} repeats, one thread"
    )
    ours = statistics.median(times["intsmooth, rounded"])
    print(f"{'ns per coordinate':34} {'median':>8} {'quartiles':>17} {'ratio':>7}")
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:34} {middle:8.3f} {low:8.3f} {high:8.3f} {middle / ours:7.2f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            facts = {"isa": ISA, "sigma": str(options.sigma), "samples_and_coordinates": sizes}
            json.dump({**facts, "ns_per_coordinate": times}, file, indent=1)


if __name__ == "__main__":
    main()
