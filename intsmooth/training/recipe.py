"""Recipes: one small readable file per model that says everything its training depends on.

A recipe is an .ini file with a section [recipe] and one section [stage NAME] per stage, in order. Float stages come
first; the first stage with `quantized = yes` folds batch norm, calibrates the ranges and goes on with the
fake-quantized twin. The recipes of the shipped models lie in the folder recipes/ beside this module.
"""

import configparser
import pathlib
from dataclasses import dataclass, fields, replace
from fractions import Fraction

from intsmooth.errors import InputError

FOLDER = pathlib.Path(__file__).parent / "recipes"
LAWS = ("rounded", "discrete")
PRECISIONS = ("auto", "bfloat16", "float32")
SMOKE = "\n# run with --smoke: one epoch per stage on a few images\n"
_KINDS = {str: "text", int: "an integer", int | None: "an integer", float: "a number", Fraction: "a number", bool: "yes or no"}


@dataclass(frozen=True)
class Stage:
    """Part of a training schedule.

    epochs:        passes over the training images
    quantized:     train the fake-quantized twin instead of the float network
    copies:        noisy copies of each image in a batch
    consistency:   lambda of Jeong and Shin (2020); 0: cross-entropy alone
    entropy:       eta of the same paper
    learning_rate: at the first step, at its peak, at the last step; linear up to the peak, a cosine from there on
    warmup:        fraction of the stage's steps until the peak
    shift:         random translation in this stage, where it is another than the recipe's
    batch:         images per step in this stage, where it is another than the recipe's
    bounded:       share of every activation's values that saturates from this stage on, and the input with them, as in the
                   integer network (calibrate.set_bounds); 0: as before. Of a float stage.
    largest:       of a filter's weights, in their root mean squares: larger ones are cut off after every step, so that the
                   integer network's steps are smaller; 0: as they come. Of a float stage.
    """

    name: str
    epochs: int
    quantized: bool = False
    copies: int = 1
    consistency: float = 0.0
    entropy: float = 0.5
    learning_rate: tuple[float, float, float] = (0.01, 0.1, 0.0)
    warmup: float = 0.1
    shift: int | None = None
    batch: int | None = None
    bounded: float = 0.0
    largest: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What a model is trained from.

    data, network: names that examples.py and network.py know
    sigma:   standard deviation of the noise in [0, 1] units, exact; law: "rounded" or "discrete"
    margin:  the integer input covers the levels of an image and this many sigma beyond on either side
    batch:   images per step; parts: pieces of a batch, normalised and differentiated separately, in a thread each; on a
             GPU a batch is one piece
    shift:   random translation by up to this many pixels; flip: random left-right mirroring
    zoom:    random enlargement by a factor of up to 1 + this, before the noise
    precision: "bfloat16" (autocast), "float32", or "auto": bfloat16 where the processor multiplies it in hardware
               (precision.py); without such hardware it was seen to be 12 times slower than float32
    validation: how many of the last training images are held out, where the data set brings no split of its own
    image:   height, width, channels of the network's input, for data = own
    init:    what to start from, if not from scratch: a shipped model's name, a model file or a float.pt
    """

    name: str
    data: str
    network: str
    sigma: Fraction
    stages: tuple[Stage, ...]
    law: str = "rounded"
    seed: int = 0
    margin: float = 3.0
    batch: int = 128
    parts: int = 2
    precision: str = "auto"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    shift: int = 0
    flip: bool = False
    zoom: float = 0.0
    validation: int = 0
    image: tuple[int, int, int] | None = None
    init: str = ""
    text: str = ""

    def smoke(self) -> "Recipe":
        """The same recipe cut down to seconds: one epoch per stage, small batches; its text says so."""
        stages = tuple(replace(stage, epochs=1, batch=None) for stage in self.stages)
        return replace(self, batch=16 * self.parts, stages=stages, text=self.text + SMOKE)

    def starting_with(self, stage: str) -> "Recipe":
        """What is left of the recipe from that stage on, for weights that the stages before have trained; its text says so.
        InputError where there is no such stage."""
        names = [one.name for one in self.stages]
        if stage not in names:
            raise InputError(f"recipe {self.name} has no stage {stage!r}; it has {', '.join(names)}")
        stages = self.stages[names.index(stage) :]
        return replace(self, stages=stages, text=f"{self.text}\n# run from stage {stage} on: without those before it\n")


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.ini")))


def load_recipe(name_or_path: str | pathlib.Path) -> Recipe:
    """The recipe of that name or in that file; InputError says what is unknown, missing or out of range in it."""
    path = pathlib.Path(name_or_path)
    if path.suffix != ".ini":
        path = FOLDER / f"{name_or_path}.ini"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(
            f"recipe {str(name_or_path)!r} cannot be read ({found}); give the path of an .ini file or one of "
            f"{', '.join(shipped_recipes())}"
        ) from None
    return parse_recipe(text, path.stem)


def parse_recipe(text: str, name: str) -> Recipe:
    """The recipe that an .ini file's text describes."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#",))
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise InputError(f"recipe {name}: not an .ini file: {error}") from None
    stages = []
    values: dict[str, object] = {}
    for section in parser.sections():
        kind, _, label = section.partition(" ")
        if kind == "stage" and label:
            stages.append(Stage(**{"name": label, **_typed(Stage, parser[section], f"{name} [{section}]")}))
        elif section == "recipe":
            values = _typed(Recipe, parser[section], f"{name} [{section}]")
        else:
            raise InputError(f"recipe {name}: section [{section}] is not known; use [recipe] and [stage NAME]")
    missing = {"data", "network", "sigma"} - values.keys()
    if missing:
        raise InputError(f"recipe {name}: {', '.join(sorted(missing))} missing in [recipe]")
    recipe = Recipe(**{"name": name, "text": text, "stages": tuple(stages), **values})
    _check(recipe)
    return recipe


def _typed(record: type, section: configparser.SectionProxy, where: str) -> dict[str, object]:
    """A section's text values in the types of the record's fields."""
    convert = {
        str: str,
        int: int,
        int | None: int,
        float: float,
        Fraction: Fraction,
        bool: lambda text: configparser.ConfigParser.BOOLEAN_STATES[text.lower()],
        tuple[int, int, int] | None: _three_integers,
        tuple[float, float, float]: lambda text: tuple(float(part) for part in text.split()),
    }
    types = {field.name: field.type for field in fields(record) if field.name not in ("name", "stages", "text")}
    values = {}
    for key, text in section.items():
        if key not in types:
            raise InputError(f"recipe {where}: {key} is not known; known are {', '.join(sorted(types))}")
        try:
            values[key] = convert[types[key]](text)
        except (ValueError, KeyError, ZeroDivisionError):
            raise InputError(f"recipe {where}: {key} = {text!r} is not {_KINDS.get(types[key], 'three numbers')}") from None
    if record is Stage and "epochs" not in values:
        raise InputError(f"recipe {where}: epochs missing")
    return values


def _three_integers(text: str) -> tuple[int, int, int]:
    height, width, channels = (int(part) for part in text.split())
    return height, width, channels


def _check(recipe: Recipe) -> None:
    order = [stage.quantized for stage in recipe.stages]
    rules = [
        (recipe.sigma > 0, "sigma must be positive"),
        (recipe.law in LAWS, f"law must be one of {', '.join(LAWS)}"),
        (recipe.precision in PRECISIONS, f"precision must be one of {', '.join(PRECISIONS)}"),
        (recipe.batch > 0 and recipe.parts > 0, "batch and parts must be positive"),
        (recipe.batch % recipe.parts == 0, "batch must be a multiple of parts"),
        (recipe.seed >= 0, "seed must not be negative"),
        (recipe.shift >= 0, "shift must not be negative"),
        (0 <= recipe.margin <= 100, "margin must be in [0, 100]"),
        (0 <= recipe.momentum < 1, "momentum must be in [0, 1)"),
        (0 <= recipe.weight_decay < 1, "weight_decay must be in [0, 1)"),
        (0 <= recipe.zoom <= 3, "zoom must be in [0, 3]"),
        (recipe.validation >= 0, "validation must not be negative"),
        (
            (recipe.image is None) == (recipe.data != "own"),
            "data = own, and it alone, needs image = HEIGHT WIDTH CHANNELS",
        ),
        (recipe.image is None or min(recipe.image) > 0, "image must be three positive numbers"),
        (any(order) and order == sorted(order), "float stages come first, and at least one quantized stage last"),
        (all(stage.epochs >= 0 for stage in recipe.stages), "epochs must not be negative"),
        (all(stage.shift is None or stage.shift >= 0 for stage in recipe.stages), "shift must not be negative"),
        (
            all(s.batch is None or s.batch > 0 and s.batch % max(recipe.parts, 1) == 0 for s in recipe.stages),
            "batch must be a positive multiple of parts",
        ),
        (all(0 <= stage.bounded < 0.5 for stage in recipe.stages), "bounded must be in [0, 0.5)"),
        (all(s.largest == 0 or 1 < s.largest < 1e6 for s in recipe.stages), "largest must be 0 or above 1"),
        (not any((s.bounded or s.largest) and s.quantized for s in recipe.stages), "bounded and largest are for float stages"),
        (all(stage.copies >= 1 for stage in recipe.stages), "copies must be at least 1"),
        (all(s.copies > 1 or not s.consistency for s in recipe.stages), "consistency needs copies of at least 2"),
        (
            all(len(s.learning_rate) == 3 and all(0 <= rate < 1e6 for rate in s.learning_rate) for s in recipe.stages),
            "learning_rate needs three numbers of at least 0",
        ),
        (all(0 <= s.consistency < 1e6 and 0 <= s.entropy < 1e6 for s in recipe.stages), "a weight must not be negative"),
        (all(0 <= stage.warmup < 1 for stage in recipe.stages), "warmup must be in [0, 1)"),
    ]
    wrong = [message for holds, message in rules if not holds]
    if wrong:
        raise InputError(f"recipe {recipe.name}: {'; '.join(wrong)}")
