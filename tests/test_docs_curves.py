"""docs/curves.py: published tables at another n, and the document that it writes, from small synthetic files."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy")
from places import ROOT, SHARED
from small_runs import small_dataset, small_smooth

from intsmooth.certify import certificate_from_counts
from intsmooth.report import summarize
from intsmooth.results import read_results
from intsmooth.run import certify_dataset

DOCS = ROOT / "docs"
if not (DOCS / "curves.py").exists():
    pytest.skip("docs/ is not part of this installation", allow_module_level=True)
PUBLISHED = SHARED / "reference_certificates"


@pytest.fixture(scope="module")
def curves():
    sys.path.insert(0, str(DOCS))
    spec = importlib.util.spec_from_file_location("curves", DOCS / "curves.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["curves"] = module  # where dataclasses look for annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def conversion(curves):
    return importlib.import_module("published")  # which stands beside curves.py


def certified(hits, n, sigma):
    return certificate_from_counts(hits, n, sigma=sigma, dimension=3072).radius


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.45, 1.0), sigma=st.sampled_from(["0.12", "0.25", "0.5", "1"]))
def test_a_radius_becomes_that_of_as_many_votes_in_a_smaller_sample(conversion, share, sigma):
    hits = int(share * 10_000)
    published = float(f"{certified(10 * hits, 100_000, sigma):.3}")  # as locuslab prints it
    found = conversion.converted_radii(np.array([published]), float(sigma), 100_000, 10_000)[0]
    exact = certified(hits, 10_000, sigma)
    assert found == pytest.approx(exact, abs=0.006 * float(sigma) + 0.006 * exact) or (not published and not found)
    assert not exact or not published or found <= published


def test_votes_are_found_back_exactly_from_their_bound(conversion):
    from scipy.stats import beta

    hits = np.array([1, 2, 900, 50_000, 99_000, 99_999, 100_000])
    bounds = beta.ppf(0.001, hits, 100_000 - hits + 1)
    assert conversion.votes_of_bounds(bounds, 100_000).tolist() == hits.tolist()
    assert conversion.votes_of_bounds(np.array([0.0, 1.0]), 100_000).tolist() == [0, 100_000]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs INTSMOOTH_SHARED/reference_certificates")
@pytest.mark.parametrize(
    ("stem", "acr", "accuracy"),
    [  # worked out elsewhere, with whole votes cut down
        ("cohen_resnet110_sigma_0.12", 0.235, ()),
        ("cohen_resnet110_sigma_0.25", 0.384, (74.4, 59.0, 42.2, 21.6)),
        ("cohen_resnet110_sigma_0.50", 0.501, ()),
        ("cohen_resnet110_sigma_1.00", 0.517, ()),
        ("gaussian_resnet20_sigma_0.50", 0.493, (66.4, 54.6, 42.0, 30.5, 20.7)),
        ("macer_resnet20_sigma_0.50", 0.604, ()),
        ("consistency_lbd10_resnet20_sigma_0.50", 0.618, (60.3, 53.9, 47.3, 40.2, 33.5)),
        ("smoothadv_pgd255_resnet20_sigma_0.50", 0.628, (62.7, 56.0, 48.5, 41.0, 33.9)),
    ],
)
def test_published_tables_at_ten_thousand_samples(curves, conversion, stem, acr, accuracy):
    curve = next(c for c in curves.read_published(PUBLISHED) if c.results.name == stem)
    found = summarize(conversion.converted(curve.results, curve.sigma, 10_000), [0.25 * i for i in range(len(accuracy))])
    assert acr <= found.acr + 0.0005 and found.acr <= acr + 0.0045  # a vote cut off costs up to this much
    assert [100 * count / found.images for count in found.counts] == pytest.approx(accuracy, abs=0.65)


def write(path, rows, n=None):
    """A results file of (idx, label, predict, radius, correct) rows."""
    path.parent.mkdir(exist_ok=True)
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime" + "\tn" * (n is not None)]
    lines += ["\t".join(map(str, (*row, "0:00:01", *([n] if n else [])))) for row in rows]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(3)
    for name, loss in (("cifar10-resnet20-s0.25", 0.0), ("cifar10-resnet20-s0.25-float", 0.02)):
        rows = [(20 * i, i % 10, (i + (i % 4 == 0)) % 10, round(0.01 * i + loss, 3), int(i % 4 > 0)) for i in range(60)]
        write(tmp_path / "ours" / f"{name}.tsv", rows, 10_000)
    rows = [(i, i % 10, i % 10, float(f"{rng.uniform(0, 0.9):.3}"), 1) for i in range(0, 2000, 10)]
    write(tmp_path / "published" / "cohen_resnet110_sigma_0.25.tsv", rows)
    write(tmp_path / "published" / "cohen_resnet110_sigma_0.50.tsv", rows)
    return tmp_path


def test_the_document_has_a_table_and_a_plot_per_sigma(curves, folders, capsys):
    pytest.importorskip("matplotlib")
    paths = ["--published", str(folders / "published"), "--ours", str(folders / "ours"), "--out", str(folders)]
    assert curves.main(paths) == 0
    written = [pathlib.Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == ["curves-s0.25.png", "models.md"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    text = written[1].read_text()
    lines = text.splitlines()
    assert "| model | 0 | 0.25 | 0.5 | 0.75 | ACR | abstained | images |" in lines
    ours = next(line for line in lines if line.startswith("| **ResNet-20"))
    certified = [45, 27, 8, 0]  # rows 0..59, every fourth wrong, radius i / 100
    expected = [f"**{1000 * count // 60 / 10:.1f}**" for count in certified]
    assert [cell.strip() for cell in ours.split("|")[2:6]] == expected
    theirs = [line for line in lines if line.startswith("| ResNet-110")]
    assert len(theirs) == 1 and theirs[0].rstrip(" |").endswith("60")  # the images of ours alone
    assert "| ResNet-20, float twin of ours |" in text and "| difference | +0.0 |" in text
    assert "Largest loss at any radius" in text and "(curves-s0.25.png)" in text


def test_a_float_twin_at_fewer_samples_is_compared_with_its_like(curves, folders):
    whole, twin = (folders / "ours" / f"cifar10-resnet20-s0.25{suffix}.tsv" for suffix in ("", "-float"))
    twin.write_text(twin.read_text().replace("\t10000\n", "\t1000\n"))
    paths = ["--published", str(folders / "published"), "--ours", str(folders / "ours"), "--out", str(folders)]
    assert curves.main([*paths, "--no-plots"]) == 0
    text = (folders / "models.md").read_text()
    assert "float twin" not in text and "Integer less float" not in text  # nothing of the same n to compare with
    partner = whole.with_name(f"{whole.stem}-n1000.tsv")
    partner.write_text(whole.read_text().replace("\t10000\n", "\t1000\n"))
    assert curves.main([*paths, "--no-plots"]) == 0
    text = (folders / "models.md").read_text()
    assert "same noise (n = 1,000, 60 test images)" in text and text.count("## ") == 1
    assert "| ResNet-20, float" not in text


def test_other_held_out_images_are_compared_by_themselves(curves, folders):
    rows = [(48_000 + i, 0, 0, 0.01 * i, 1) for i in range(50)]
    for suffix, loss in (("-n1000", 0.0), ("-float", 0.0101)):
        path = folders / "ours" / f"cifar10-resnet20-s0.25-validation{suffix}.tsv"
        write(path, [(*row[:3], round(row[3] + loss, 4), 1) for row in rows], 1000)
    paths = ["--published", str(folders / "published"), "--ours", str(folders / "ours"), "--out", str(folders)]
    assert curves.main([*paths, "--no-plots"]) == 0
    text = (folders / "models.md").read_text()
    assert text.count("## ") == 1 and text.count("| **ResNet-20") == 1 and text.count("| ResNet-20, float") == 1
    test, validation = text.split("same noise (n = ")[1:]
    assert test.startswith("10,000, 60 test images)") and validation.startswith("1,000, 50 validation images)")
    assert "Largest loss at any radius: -4.00 points" in validation  # two images at a time


def test_other_noise_is_told_by_itself_and_on_average(curves, tmp_path):
    # Of 60 images the integers lose three above 0.2 under one noise, and one above 0.3 under the other.
    radii = {"": [0.3] * 57 + [0.2] * 3, "-float": [0.3] * 60}
    other = {"-seed2-n10000": [0.3] * 60, "-seed2-float": [0.3] * 59 + [0.35]}
    for suffix, column in (radii | other).items():
        rows = [(20 * i, 0, 0, radius, 1) for i, radius in enumerate(column)]
        write(tmp_path / "ours" / f"cifar10-resnet20-s0.25{suffix}.tsv", rows, 10_000)
    curves.write(curves.read_ours(tmp_path / "ours"), [], tmp_path, plots=False)
    text = (tmp_path / "models.md").read_text()
    assert text.count("Largest loss at any radius") == 1 and text.count("| ResNet-20, float twin of ours |") == 1
    behind = ("; more than 0.5 points at 33.33 %", "; more than 0.5 points at 14.29 %", "; more than 0.5 points at 42.86 %")
    assert f"Largest loss at any radius: -5.00 points, at 0.300{behind[0]}" in text
    assert f"Under other noise (seed 2): -1.67 points, at 0.350{behind[1]}" in text
    assert f"Mean of the 2 runs: -2.50 points, at 0.300{behind[2]}" in text


def test_the_other_bound_of_the_same_votes_is_what_certify_gives(curves, tmp_path):
    found = {}
    for bound in ("clopper-pearson", "two-class"):
        path = tmp_path / f"{bound}.tsv"
        certify_dataset(small_smooth(), small_dataset(), path, n=200, bound=bound)
        found[bound] = read_results(path)
    other = curves.with_two_classes(found["clopper-pearson"])
    wanted = found["two-class"]
    assert np.abs(other.radius - wanted.radius).max() < 1e-6 and (other.radius != found["clopper-pearson"].radius).any()
    assert (other.predict == wanted.predict).all() and (other.correct == wanted.correct).all()
    path = tmp_path / "ours" / "cifar10-resnet20-s0.25.tsv"
    path.parent.mkdir()
    path.write_bytes((tmp_path / "clopper-pearson.tsv").read_bytes())
    curves.write(curves.read_ours(path.parent), [], tmp_path, plots=False)
    rows = [line for line in (tmp_path / "models.md").read_text().splitlines() if line.startswith("| **ResNet-20")]
    assert len(rows) == 2 and "two-class bound" in rows[1]


def test_images_that_were_skipped_are_no_abstentions_of_the_model(curves, folders):
    whole = folders / "ours" / "cifar10-resnet20-s0.25.tsv"
    lines = whole.read_text().splitlines()
    wrong = next(i for i, line in enumerate(lines[1:], 1) if line.split("\t")[4] == "0")
    lines[wrong] = lines[wrong].replace("\t10000", "\t0")
    whole.write_text("\n".join(lines) + "\n")
    paths = ["--published", str(folders / "published"), "--ours", str(folders / "ours"), "--out", str(folders)]
    assert curves.main([*paths, "--no-plots"]) == 0
    (ours,) = (line for line in (folders / "models.md").read_text().splitlines() if line.startswith("| **ResNet-20"))
    assert [cell.strip(" *") for cell in ours.split("|")[-3:-1]] == ["-", "60"]


def test_what_does_not_fit_is_said_on_one_line(curves, folders, capsys):
    out = ["--out", str(folders), "--no-plots"]
    published, ours = ["--published", str(folders / "published")], ["--ours", str(folders / "ours")]
    assert curves.main([*published, "--ours", str(folders), *out]) == 2
    assert "holds no results files" in capsys.readouterr().err
    assert curves.main(["--published", str(folders / "ours"), *ours, *out]) == 2
    assert "METHOD_NETWORK_sigma_S.tsv" in capsys.readouterr().err
    write(folders / "ours" / "mine.tsv", [(0, 1, 1, 0.5, 1)])
    assert curves.main([*published, *ours, *out]) == 2
    assert "rename it" in capsys.readouterr().err
    (folders / "ours" / "mine.tsv").rename(folders / "ours" / "cifar10-resnet20-s0.5.tsv")
    assert curves.main([*published, *ours, *out]) == 2
    assert "one number of samples" in capsys.readouterr().err
    assert not (folders / "models.md").exists()
