"""How long until the first certificate: importing, starting with everything compiled, and the very first run?

    python bench/startup.py

A certificate is `intsmooth certify MODEL --max 1` in a fresh process, from before Python starts until the process has
ended, with the command's own n for the digits and n = 1000 for ResNet-20. The first run happens in a copy of the
package in which nothing is compiled yet. An import is timed inside a fresh process, without Python's own start.
"""

import pathlib
import tempfile

from harness import Effort, Report, Spread, main, say
from installation import RESNET, Installation, certify_one, has_digits

_TIMED = "import time; start = time.perf_counter(); {0}; print(time.perf_counter() - start)"
IMPORT, NAMES = "import intsmooth", "from intsmooth import Smooth, open_dataset"
_HEAVY = "import sys, intsmooth; print([name for name in ('numba', 'scipy', 'h5py') if name in sys.modules])"


def question(effort: Effort) -> Report:
    report, repeats = Report("Start-up"), 2 if effort.quick else 7
    first: dict[str, list[float]] = {}
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for attempt in range(1 if effort.quick else 2):
            place = pathlib.Path(folder) / str(attempt)
            installation = Installation(place)
            models = ["digits"] * has_digits(installation) + [RESNET]
            for model in models:  # the second compiles only what the first did not need
                say(f"first run: {model}")
                done = installation.run("-m", "intsmooth", *certify_one(model, None if model == "digits" else 1000))
                first.setdefault(model, []).append(done.seconds)
                lines = [line for line in done.text.splitlines() if "compil" in line.lower()]
                told.setdefault(model, lines[0] if lines else "")
        times: dict[str, list[float]] = {}
        say("starting again, everything compiled")
        for _ in range(repeats):
            for model in models:
                done = installation.run("-m", "intsmooth", *certify_one(model, None if model == "digits" else 1000))
                times.setdefault(model, []).append(done.seconds)
            for code in (IMPORT, NAMES):
                times.setdefault(code, []).append(float(installation.run("-c", _TIMED.format(code)).text))
            times.setdefault("python -c pass", []).append(installation.run("-c", "pass").seconds)
        heavy = installation.run("-c", _HEAVY).text.strip()
    spreads = {name: Spread(tuple(values)) for name, values in times.items()}
    rows = [(f"`{name}`", spreads[name].text(".3f")) for name in (IMPORT, NAMES)]
    rows += [(f"certificate, {model}, everything compiled", spreads[model].text(".2f")) for model in models]
    for model, values in first.items():
        rows.append((f"certificate, {model}, first run{' (after the digits)' * (model != models[0])}",
                     Spread(tuple(values)).text(".1f")))  # fmt: skip
    rows.append(("a Python process that does nothing", spreads["python -c pass"].text(".3f")))
    report.table(("what", "seconds"), rows)
    said = next((f'says "{line}"' for line in told.values() if line), "says nothing about compiling")
    report.text(f"`import intsmooth` loads {heavy if heavy != '[]' else 'none'} of numba, scipy and h5py. "
                f"The first run {said}.")  # fmt: skip
    report.target("`import intsmooth`", "<= 0.3 s", spreads[IMPORT].text(".3f", " s"), spreads[IMPORT].median <= 0.3)
    warm = spreads[models[0]]
    report.target(f"`intsmooth certify {models[0]}` again, everything compiled, first certificate", "<= 2 s",
                  warm.text(".2f", " s"), warm.median <= 2)  # fmt: skip
    cold = sum(max(values) for values in first.values())
    report.target(f"first runs after installation, all compilation ({' and '.join(models)}), saying so", "<= 25 s",
                  f"{cold:.1f} s", cold <= 25 and any(told.values()))  # fmt: skip
    return report


if __name__ == "__main__":
    main(question, __doc__)
