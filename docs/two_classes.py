"""The certificates that the votes of a results file give under the two-class bound: `certify --bound two-class` after the fact.

For tables that show both bounds beside each other. Whoever certifies chooses one bound before the votes
(docs/sampling.md); each of the two is a statement of its own at the file's alpha.
"""

import json

from intsmooth.certify import certificate_from_two_classes
from intsmooth.results import Results


def with_two_classes(results: Results) -> Results:
    """The table with the columns predict, radius and correct as the two-class bound has them, the others as they were.

    results: a file of intsmooth's, which holds the counts. Rows without an estimation (n = 0, `--skip-wrong`) stay.
    """
    columns = {name: list(results.columns[name]) for name in ("predict", "radius", "correct")}
    for row in range(len(results)):
        text = {name: values[row] for name, values in results.columns.items()}
        if text["n"] == "0":
            continue
        extra = json.loads(text["extra"])
        found = certificate_from_two_classes(
            json.loads(text["counts"]), top=int(text["top"]), sigma=text["sigma"], dimension=extra["dimension"],
            alpha=text["alpha"], law=text["law"], unit=int(text["unit"]), tv=extra["tv"],
        )  # fmt: skip
        columns["predict"][row] = str(found.prediction)
        columns["radius"][row] = repr(found.radius)
        columns["correct"][row] = str(int(found.prediction == int(text["label"])))
    return Results(results.name, dict(results.columns) | {name: tuple(values) for name, values in columns.items()})
