"""The certified-accuracy curve, against locuslab's definition and published files, and the plot."""


import numpy as np
import pytest
from places import SHARED
from result_tables import table

from intsmooth.curve import certified_accuracy_curve, curve_table, plot_curves
from intsmooth.errors import InputError, MissingExtraError, ResourceError
from intsmooth.results import read_results

PUBLISHED = SHARED / "reference_certificates"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs INTSMOOTH_SHARED/reference_certificates")
ROWS = [(3, 0.5, 1), (3, 0.25, 0), (-1, 0.0, 0), (1, 1.0, 1), (2, 0.5, 1)]


def test_the_curve_steps_down_behind_each_certified_radius():
    radii, accuracy = certified_accuracy_curve(table(ROWS))
    assert radii.tolist() == [0.0, 0.5, 1.0] and accuracy.tolist() == [0.6, 0.6, 0.2]


@needs_published
@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.tsv")), ids=lambda path: path.stem)
def test_published_files_by_the_definition(path):
    results = read_results(path)
    radii, accuracy = certified_accuracy_curve(results)
    assert len(results) == 500 or len(results) == 10_000
    for radius in np.linspace(0, 2, 41):
        direct = np.mean(results.correct & (results.radius >= radius))
        following = np.searchsorted(radii, radius)
        assert direct == pytest.approx(accuracy[following] if following < len(radii) else 0.0)


@needs_published
def test_published_values_of_resnet20_at_sigma_one_half():
    paths = [PUBLISHED / f"{name}_resnet20_sigma_0.50.tsv" for name in ("gaussian", "macer", "consistency_lbd10")]
    lines = curve_table([read_results(path) for path in paths], [0.0, 0.5]).splitlines()
    acr = next(line.split() for line in lines if line.lstrip().startswith("ACR"))
    assert [float(value) for value in acr[1:]] == pytest.approx([0.524, 0.661, 0.686], abs=0.0016)


def test_the_table_puts_files_side_by_side():
    lines = curve_table([table(ROWS, unit=16), table(ROWS[:1])], [0.0, 0.5, 0.75]).splitlines()
    assert [line.split() for line in lines] == [
        ["radius", "table", "table"],
        ["0.000", "60.0", "100.0"],
        ["0.500", "60.0", "100.0"],
        ["0.750", "20.0", "0.0"],
        ["ACR", "0.400", "0.500"],
        ["abstained", "20.0", "0.0"],
        ["images", "5", "1"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_an_empty_file_has_no_curve():
    with pytest.raises(InputError, match="no rows yet"):
        certified_accuracy_curve(table([]))


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_plots_in_several_formats(tmp_path, name, magic):
    pytest.importorskip("matplotlib")
    plot_curves([table(ROWS, unit=16), table(ROWS[:2], unit=16)], tmp_path / name, title="two files")
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_the_drawn_line_is_the_curve(tmp_path, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_curves([table(ROWS)], tmp_path / "a.png")
    (line,) = drawn[0].axes[0].get_lines()
    assert line.get_drawstyle() == "steps-pre"
    assert line.get_xdata().tolist() == [0.0, 0.5, 1.0, 1.0]
    assert line.get_ydata().tolist() == pytest.approx([60, 60, 20, 0])


def test_plots_that_cannot_be_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    with pytest.raises(InputError, match="cannot draw into"):
        plot_curves([table(ROWS)], tmp_path / "a.docx")
    with pytest.raises(ResourceError, match="there is no folder"):
        plot_curves([table(ROWS)], tmp_path / "none" / "a.png")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"intsmooth\[plot\]"):
        plot_curves([table(ROWS)], tmp_path / "a.png")
