"""Runs every benchmark and writes RESULTS.md beside this file.

    python bench/run_all.py [--quick] [--only NAME ...] [--out FILE]

Each question runs in a process of its own, one after the other, for fifteen minutes at most in all: a question gets no
more than what is left, and one that fails or does not finish is in the results as such. Run it on a machine with
nothing else to do; the load before and after is recorded. --quick tries the programs; its figures mean nothing.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque

from harness import FOLDER, Report, load_average, machine_facts, say, target_table

QUESTIONS = ("resnet20", "litert", "operators", "noise", "startup", "memory", "linearity", "tflite_models")
BUDGET = 15 * 60  # seconds
_NOISE_GOAL = 1.3  # ns per coordinate and core


def run_question(name: str, quick: bool, folder: pathlib.Path, seconds: float) -> Report:
    """The report of bench/NAME.py; a program that writes no report of ours is quoted."""
    result, program = folder / f"{name}.json", FOLDER / f"{name}.py"
    arguments = ["--json", str(result)]
    if name == "noise":
        arguments += ["--repeats", "3", "--samples", "40"] if quick else []
    elif name == "tflite_models":
        arguments = []
    else:
        arguments += ["--folder", str(folder)] + (["--quick", "--rounds", "2", "--seconds", "0.05"] if quick else [])
    code, printed, complaints = run_program([sys.executable, str(program), *arguments], max(seconds, 1))
    if code is None:
        return Report(name, [f"Not finished within the {seconds:.0f} seconds that were left."])
    if code:
        report = Report(name, [f"Failed with exit code {code}."])
        report.verbatim(complaints)
        return report
    found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    if "blocks" in found:
        return Report(found["title"], found["blocks"], found["targets"])
    report = Report({"noise": "Noise", "tflite_models": "TensorFlow Lite models"}.get(name, name))
    if printed.lstrip().startswith("|"):  # Markdown already
        report.blocks.append(printed.strip())
    else:
        report.verbatim(printed)
    if "ns_per_coordinate" in found:
        median = statistics.median(found["ns_per_coordinate"]["intsmooth, rounded"])
        report.target("noise, rounded law, sigma = 63.75 levels, ns per coordinate and core", f"<= {_NOISE_GOAL}",
                      f"{median:.3f}", median <= _NOISE_GOAL)  # fmt: skip
    return report


def run_program(command: list[str], seconds: float) -> tuple[int | None, str, str]:
    """(exit code, standard output, last lines of standard error), which is passed on as it comes; None: out of time."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=FOLDER.parent, stdout=output, stderr=subprocess.PIPE, text=True)
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        complaints: deque[str] = deque(maxlen=20)
        for line in process.stderr:
            sys.stderr.write(line)
            complaints.append(line)
        code = process.wait()
        timer.cancel()
        output.seek(0)
        return None if late.is_set() else code, output.read(), "".join(complaints)


def assemble(reports: list[Report], facts: dict[str, str], seconds: float, load_after: float, quick: bool) -> str:
    """RESULTS.md."""
    lines = ["# Results", "Written by `python bench/run_all.py`; bench/README.md says what is measured and how."]
    if quick:
        lines.append("**Tried with --quick: the figures mean nothing.**")
    if float(facts["load"]) > 0.5:
        lines.append(f"**Other programs were running (load average {facts['load']}): the figures are unreliable.**")
    table = ["| machine | |", "| :-- | :-- |", *(f"| {name} | {value} |" for name, value in facts.items())]
    table.append(f"| load at the end | {load_after:.2f} |")
    table.append(f"| date, duration | {time.strftime('%Y-%m-%d')}, {seconds / 60:.1f} minutes |")
    targets = [target for report in reports for target in report.targets]
    lines += ["\n".join(table), "## Targets", target_table(targets), *(report.markdown().strip() for report in reports)]
    return "\n\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: tries the programs, measures nothing")
    parser.add_argument("--only", nargs="+", choices=QUESTIONS, help="these questions alone")
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / "RESULTS.md", help="default: bench/RESULTS.md")
    options = parser.parse_args()
    facts, start, reports = machine_facts(), time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or QUESTIONS:
            if (FOLDER / f"{name}.py").exists():
                began = time.monotonic()
                reports.append(run_question(name, options.quick, pathlib.Path(folder), BUDGET - (began - start)))
                say(f"{name}: {time.monotonic() - began:.0f} s")
        text = assemble(reports, facts, time.monotonic() - start, load_average(), options.quick)
        for picture in pathlib.Path(folder).glob("*.png"):
            (options.out.parent / picture.name).write_bytes(picture.read_bytes())
    options.out.write_text(text, encoding="utf-8")
    say(f"written: {options.out}")
    sys.exit(any("Failed" in block or "Not finished" in block for report in reports for block in report.blocks[:1]))


if __name__ == "__main__":
    main()
