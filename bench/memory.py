"""How much memory does certifying ResNet-20 take, and does it depend on n?

    python bench/memory.py

The peak resident size of whole processes, as the kernel counts it (VmHWM on Linux, where the maximum that getrusage
reports would include the process that started them), compiling included in the first row and not in the others.
"""

import pathlib
import tempfile

from harness import Effort, Report, main, say
from installation import RESNET, Installation, certify_one

PEAK = """
def peak_megabytes():
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e6
    except OSError:
        import resource, sys
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
"""
_CERTIFY = PEAK + "import sys; from intsmooth import cli; cli.main(sys.argv[1:]); print('peak', peak_megabytes())"
_IMPORTS = PEAK + "import numpy, numba; print('peak', peak_megabytes())"


def peak(installation: Installation, code: str, *arguments: str) -> float:
    """MB (10^6 bytes) of a fresh process that runs `code`."""
    text = installation.run("-c", code, *arguments).text
    return float(text.rsplit("peak", 1)[1].split()[0])


def question(effort: Effort) -> Report:
    report = Report("Memory")
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(pathlib.Path(folder) / "copy")
        rows = {}

        def measure(name: str, code: str, *arguments: str) -> float:
            say(name)
            rows[name] = peak(installation, code, *arguments)
            return rows[name]

        measure("n = 1,000, compiling everything", _CERTIFY, *certify_one(RESNET, 1000))
        sizes = (1_000, 4_000) if effort.quick else (1_000, 10_000, 100_000)
        for n in sizes:
            measure(f"n = {n:,}", _CERTIFY, *certify_one(RESNET, n))
        for threads in (1, 4):
            name = f"n = {sizes[1]:,}, {threads} thread{'s' * (threads > 1)}"
            measure(name, _CERTIFY, *certify_one(RESNET, sizes[1]), "--threads", str(threads))
        measure("for comparison: a process that only imports numpy and numba", _IMPORTS)
    report.text("`intsmooth certify` of one CIFAR-10 shaped image with ResNet-20, one thread per processor.")
    report.table(("process", "peak, MB"), [(name, f"{value:.0f}") for name, value in rows.items()])
    largest = max(value for name, value in rows.items() if name.startswith("n ="))
    report.target(f"peak memory while certifying ResNet-20 at n = {sizes[-1]:,} (compiling included)", "<= 350 MB",
                  f"{largest:.0f} MB", largest <= 350)  # fmt: skip
    return report


if __name__ == "__main__":
    main(question, __doc__)
