"""Small result tables for the tests of report and curve."""

from intsmooth.results import Results


def table(rows, unit=None):
    """Results from (predict, radius, correct) triples."""
    columns = {"idx": tuple(str(i) for i in range(len(rows))), "label": ("0",) * len(rows)}
    for i, name in enumerate(("predict", "radius", "correct")):
        columns[name] = tuple(str(row[i]) for row in rows)
    if unit:
        columns["unit"] = (str(unit),) * len(rows)
    return Results("table", columns)
