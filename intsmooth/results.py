"""The results table: one row per image, from which its certificate can be re-derived; its format and its reader.

A tab-separated table whose first columns are locuslab's, `idx label predict radius correct time`, so that their
analysis scripts read it as it is, and so does

    pandas.read_csv("results.tsv", sep="\\t")

There is no comment line, which such readers would trip over, and no second file, which could be lost: what holds for
the whole run (model digest, seed, version, settings) stands in every row. `results_writer` appends the rows.
"""

import datetime
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from intsmooth.certify import format_radius_down
from intsmooth.errors import ResultsError
from intsmooth.records import ABSTAIN, Certificate

LOCUSLAB = ("idx", "label", "predict", "radius", "correct", "time")
SETTINGS = ("n0", "alpha", "sigma", "law", "seed", "plan", "model", "unit")  # equal in every row
MAX_FILE_BYTES = 2**28  # hundreds of thousands of rows
MAX_RADIUS = 10**6  # in [0, 1] units
COLUMNS = (
    *LOCUSLAB,
    *("image", "budget", "radius_levels", "p_lower", "top", "hits", "n", "selection", "counts", "extra"),
    *SETTINGS,
    "version",
)

HEADER = ("\t".join(COLUMNS) + "\n").encode()


def result_row(
    index: int,
    label: int,
    digest: bytes,
    certificate: Certificate,
    seconds: float,
    settings: Mapping[str, str],
    version: str,
) -> dict[str, str]:
    """The text of one row. digest: the image's 32 bytes; settings: text for each of SETTINGS.

    Radii and p_lower are cut after 6 and 15 decimals, so that none is more than what was certified. Counts are JSON
    lists.
    """
    correct = certificate.prediction == label and certificate.prediction != ABSTAIN
    row = {
        "idx": str(index),
        "label": str(label),
        "predict": str(certificate.prediction),
        "radius": format_radius_down(certificate.radius, 6),
        "correct": str(int(correct)),
        "time": str(datetime.timedelta(microseconds=round(seconds * 1e6))),
        "image": "0x" + digest.hex(),  # the prefix keeps readers from taking digits for a number
        "budget": str(certificate.budget),
        "radius_levels": format_radius_down(certificate.radius_levels, 6),
        "p_lower": format_radius_down(certificate.p_lower, 15),
        "top": str(certificate.top),
        "hits": str(certificate.hits),
        "n": str(certificate.n),
        "selection": json.dumps([int(count) for count in certificate.selection], separators=(",", ":")),
        "counts": json.dumps([int(count) for count in certificate.counts], separators=(",", ":")),
        "extra": json.dumps(dict(certificate.extra), separators=(",", ":"), sort_keys=True, default=str),
        "version": version,
    }
    return row | {name: settings[name] for name in SETTINGS}


@dataclass(frozen=True)
class Results:
    """A table read from a results file, ours or locuslab's: the text of each column, and the numbers in it."""

    name: str
    columns: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.columns["idx"])

    @property
    def radius(self) -> np.ndarray:
        """float64 [N], in [0, 1] units; 0 where the classifier abstained."""
        return np.array(self.columns["radius"], dtype=np.float64)

    @property
    def correct(self) -> np.ndarray:
        """bool [N]: predicted the label, and did not abstain."""
        return np.array(self.columns["correct"], dtype=np.int64).astype(bool)

    @property
    def predict(self) -> np.ndarray:
        """int64 [N], ABSTAIN (-1) included."""
        return np.array(self.columns["predict"], dtype=np.int64)

    @property
    def unit(self) -> int | None:
        """How many levels make 1.0, None in a file that does not say."""
        return int(self.columns["unit"][0]) if len(self) and "unit" in self.columns else None

    def first(self, count: int) -> "Results":
        """The first `count` rows."""
        return Results(self.name, {name: values[:count] for name, values in self.columns.items()})


def read_results(path: str | pathlib.Path) -> Results:
    """Read a results file, ours or one of locuslab's; a torn last line, as in a file still being written, is left out.

    ResultsError where there is none, or its columns or numbers are not those of a results file.
    """
    path = pathlib.Path(path)
    try:
        if path.exists() and not path.is_file():
            raise OSError(None, "not a regular file")  # a pipe or a device could block for ever or never end
        if path.stat().st_size > MAX_FILE_BYTES:
            raise OSError(None, f"larger than {MAX_FILE_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or error
        raise ResultsError(
            f"{path} cannot be read as a results file: {found}; give a tab-separated text file"
        ) from error
    lines = text.removesuffix("\n").split("\n")  # not splitlines, which knows characters that end no row
    names = lines[0].split("\t")
    missing = [name for name in LOCUSLAB[:-1] if name not in names]
    if missing:
        raise ResultsError(f"{path} is no results file: its first line lacks the columns {', '.join(missing)}")
    rows = [line.split("\t") for line in lines[1:]]
    if rows and len(rows[-1]) != len(names) and not text.endswith("\n"):
        rows.pop()
    for number, row in enumerate(rows, start=2):
        if len(row) != len(names):
            raise ResultsError(
                f"{path}, line {number}: {len(row)} columns, {len(names)} are required; the file is damaged"
            )
        if fault := row_fault(dict(zip(names, row, strict=True))):
            raise ResultsError(f"{path}, line {number}: {fault}; the file is damaged")
    values = zip(*rows, strict=True) if rows else ((),) * len(names)
    results = Results(path.stem, dict(zip(names, values, strict=True)))
    return results


def is_ours(path: str | pathlib.Path) -> bool:
    """Whether a file begins like those that `results_writer` writes."""
    try:
        with open(path, "rb") as file:
            return file.read(len(HEADER)) == HEADER
    except OSError:
        return False


def row_fault(row: Mapping[str, str]) -> str:
    """Why a row, ours or locuslab's, can be no result of certification; "" where it can."""
    try:
        label, predict, correct, radius = int(row["label"]), int(row["predict"]), int(row["correct"]), float(row["radius"])
        unit = int(row.get("unit", "1"))
        count = int(row.get("n", "0"))
        extra = json.loads(row.get("extra", "{}"))
    except (ValueError, RecursionError) as error:
        return f"not the numbers of a result: {error}"
    if not 0 <= radius <= MAX_RADIUS:
        return f"radius is {row['radius']}, not 0 to {MAX_RADIUS}"
    if max(abs(label), abs(predict)) >= 2**31:
        return f"label is {row['label']}, predict {row['predict']}: no classes"
    if correct != (predict == label and predict != ABSTAIN):
        return f"correct is {row['correct']}, but label is {label} and predict {predict}"
    if predict == ABSTAIN and radius > 0:
        return f"radius is {row['radius']}, but predict {ABSTAIN}, an abstention"
    if not 1 <= unit < 2**16:
        return f"unit is {unit}, not 1 to 65535"
    if count < 0 or not isinstance(extra, dict):
        return f"n is {count} and extra {row.get('extra')}; a count and a JSON object are required"
    return ""
