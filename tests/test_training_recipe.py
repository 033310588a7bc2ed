"""Recipes: every shipped one is valid, and whatever is wrong in one is said."""

from fractions import Fraction

import pytest

from intsmooth.errors import InputError
from intsmooth.shipped import shipped_models
from intsmooth.training.recipe import load_recipe, parse_recipe, shipped_recipes

GOOD = """
[recipe]
data = digits
network = digits_cnn
sigma = 0.12
[stage float]
epochs = 1
[stage quantized]
epochs = 2
quantized = yes
copies = 2
consistency = 10
learning_rate = 0 0.01 0
"""


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipe_is_valid_and_named_after_its_noise(name):
    recipe = load_recipe(name)
    assert name == recipe.name
    assert Fraction(name.rpartition("-s")[2]) == recipe.sigma


def test_recipe_is_read_in_full():
    recipe = parse_recipe(GOOD, "mine")
    assert recipe.sigma == Fraction(12, 100)
    assert [stage.name for stage in recipe.stages] == ["float", "quantized"]
    last = recipe.stages[-1]
    assert (last.epochs, last.quantized, last.copies, last.consistency) == (2, True, 2, 10.0)
    assert last.learning_rate == (0.0, 0.01, 0.0)
    assert recipe.text == GOOD


def test_smoke_recipe_keeps_the_stages_runs_each_once_and_says_so():
    assert parse_recipe(GOOD, "mine").smoke().text != GOOD
    assert [stage.epochs for stage in parse_recipe(GOOD, "mine").smoke().stages] == [1, 1]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("sigma = 0.12", "", "sigma missing"),
        ("sigma = 0.12", "sigma = 0", "sigma must be positive"),
        ("sigma = 0.12", "sigma = 1/0", "is not a"),
        ("sigma = 0.12", "sigma = 0.12\nlaw = laplace", "law must be"),
        ("sigma = 0.12", "sigma = 0.12\nbatch = 127", "multiple of parts"),
        ("sigma = 0.12", "sigma = 0.12\nsgima = 1", "sgima is not known"),
        ("sigma = 0.12", "sigma = 0.12\nprecision = float64", "precision must be one of auto, bfloat16, float32"),
        ("sigma = 0.12", "sigma = 0.12\nzoom = -1", "zoom must be in"),
        ("sigma = 0.12", "sigma = 0.12\nimage = 8 8", "is not three numbers"),
        ("sigma = 0.12", "sigma = 0.12\nimage = 8 8 1", "data = own, and it alone"),
        ("data = digits", "data = own", "needs image"),
        ("data = digits", "data = own\nimage = 8 0 1", "three positive"),
        ("quantized = yes", "quantized = no", "quantized stage last"),
        ("quantized = yes", "quantized = perhaps", "is not yes or no"),
        ("epochs = 2", "epochs = two", "is not an integer"),
        ("learning_rate = 0 0.01 0", "learning_rate = 0 -0.01 0", "at least 0"),
        ("learning_rate = 0 0.01 0", "learning_rate = 0 nan 0", "at least 0"),
        *(
            ("sigma = 0.12", f"sigma = 0.12\n{line}", f"{line.split()[0]} must")
            for line in ("seed = -1", "momentum = 1", "weight_decay = inf", "margin = inf", "margin = nan")
        ),
        ("copies = 2", "copies = 2\nshift = -1", "shift must not be negative"),
        ("copies = 2", "copies = 1", "consistency needs copies"),
        ("epochs = 1", "epochs = 1\nbatch = 0", "positive multiple of parts"),
        ("epochs = 1", "epochs = 1\nbounded = 0.5", "bounded must be in"),
        ("epochs = 1", "epochs = 1\nlargest = 1", "largest must be 0 or above 1"),
        ("quantized = yes", "quantized = yes\nbounded = 0.1", "for float stages"),
        ("epochs = 2", "", "epochs missing"),
        ("learning_rate = 0 0.01 0", "learning_rate = 0.01", "three numbers"),
        ("[stage float]", "[stages]", "is not known"),
        ("[stage float]", "[stage quantized]", "not an .ini file"),
    ],
)
def test_bad_recipe_is_refused_with_its_reason(old, new, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_recipe(GOOD.replace(old, new, 1), "mine")


def test_unknown_recipe_names_those_that_exist(tmp_path):
    with pytest.raises(InputError, match="digits-s0.25"):
        load_recipe("nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(tmp_path / "missing.ini")
    (tmp_path / "latin.ini").write_bytes(GOOD.replace("digits_cnn", "réseau").encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        load_recipe(tmp_path / "latin.ini")


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if load_recipe(name).init])
def test_what_a_shipped_recipe_starts_from_is_shipped(name):
    assert load_recipe(name).init in shipped_models()
