"""Training end to end in miniature: it runs, it learns, it resumes in the same bits, and it says what is wrong."""

import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

if sys.platform != "win32":
    import resource

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")
pytest.importorskip("sklearn", reason="scikit-learn (extra [train]) brings the digits")

from intsmooth import h5file  # noqa: E402
from intsmooth.errors import InputError, ResourceError  # noqa: E402
from intsmooth.shipped import find_model  # noqa: E402
from intsmooth.training import agreement, checkpoint, command, loop  # noqa: E402
from intsmooth.training.examples import Examples, batches, load_examples  # noqa: E402
from intsmooth.training.recipe import Stage, load_recipe, parse_recipe  # noqa: E402

TINY = """
[recipe]
data = digits
network = digits_cnn
sigma = 0.25
batch = 64
precision = float32
[stage gaussian]
epochs = 2
learning_rate = 0.02 0.1 0.02
[stage consistency]
epochs = 1
copies = 2
consistency = 5
learning_rate = 0.01 0.02 0
[stage quantized]
quantized = yes
epochs = 2
learning_rate = 0 0.002 0
"""


class Killed(Exception):
    pass


def quiet(line):
    pass


def test_smoke_run_writes_a_model_and_a_log(tmp_path):
    graph = command.run("digits-s0.25", None, tmp_path / "model.h5", tmp_path / "work", smoke=True, say=quiet)
    assert h5file.load(tmp_path / "model.h5").digest == graph.digest
    assert graph.facts["sigma"] == "0.25" and graph.facts["dataset"] == "digits" and graph.unit == 16
    assert graph.digest in (tmp_path / "work" / "training.log").read_text()


def test_it_learns_and_a_killed_run_resumes_in_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_SAVE_SECONDS", -1.0)
    recipe = tmp_path / "tiny.ini"
    recipe.write_text(TINY)
    whole = command.run(recipe, None, tmp_path / "whole.h5", tmp_path / "whole", say=quiet)
    assert float(whole.facts["noisy validation accuracy"]) > 0.6

    for moment in ("gaussian 2/2", "consistency 1/1", "quantized 2/2"):  # each killed before its epoch is saved

        def kill(line, moment=moment):
            if line.startswith(moment):
                raise Killed

        resume = (tmp_path / "parts" / "checkpoint.pt").exists()
        with pytest.raises(Killed):
            command.run(recipe, None, tmp_path / "parts.h5", tmp_path / "parts", resume=resume, say=kill)
    resumed = command.run(recipe, None, tmp_path / "parts.h5", tmp_path / "parts", resume=True, say=quiet)
    assert resumed.digest == whole.digest
    assert not list(tmp_path.rglob("*.part"))

    recipe.write_text(TINY.replace("consistency = 5", "consistency = 6"))
    with pytest.raises(InputError, match="another recipe"):
        command.run(recipe, None, tmp_path / "parts.h5", tmp_path / "parts", resume=True, say=quiet)
    start = tmp_path / "whole" / "float.pt"
    warm = command.run(recipe, None, tmp_path / "warm.h5", tmp_path / "warm", init=start, smoke=True, say=quiet)
    assert warm.digest != whole.digest and warm.facts["started from"].startswith("float.pt, SHA-256 ")
    assert "started from" not in resumed.facts
    with pytest.raises(InputError, match="float weights"):  # the last checkpoint holds the twin
        command.run(recipe, None, tmp_path / "x.h5", tmp_path / "x", init=tmp_path / "whole" / "checkpoint.pt")


def test_a_run_is_neither_overwritten_nor_mistaken_for_another(tmp_path, monkeypatch):
    recipe, work = tmp_path / "tiny.ini", tmp_path / "work"
    recipe.write_text(TINY.replace("epochs = 2", "epochs = 1"))

    def run(**options):
        return command.run(recipe, None, tmp_path / "model.h5", work, say=quiet, **options)

    for _ in range(2):  # one smoke run may follow another
        smoke = run(smoke=True)
    with pytest.raises(InputError, match="another recipe"):
        run(resume=True)
    whole = run()
    assert whole.digest != smoke.digest
    before = (work / "checkpoint.pt").read_bytes()
    for options in ({}, {"smoke": True}):
        with pytest.raises(InputError, match="another run's: continue it with --resume"):
            run(**options)
    data = load_examples(load_recipe(recipe), None)
    inverted = replace(data, training=Examples(16 - data.training.images, data.training.labels))
    monkeypatch.setattr("intsmooth.training.examples.load_examples", lambda *_: inverted)
    with pytest.raises(InputError, match="made from another data"):
        run(resume=True)
    monkeypatch.undo()
    (work / "checkpoint.pt").write_bytes((work / "float.pt").read_bytes())
    with pytest.raises(InputError, match="start from it with --init"):
        run(resume=True)
    (work / "checkpoint.pt").write_bytes(before)
    assert run(resume=True).digest == whole.digest


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"network": {"a": torch.zeros(3)}})
    before = path.read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(ResourceError, match="cannot be written"):
            checkpoint.save(path, {"network": {"a": torch.zeros(10_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_recipe_names_what_it_starts_from(tmp_path):
    recipe = tmp_path / "tiny.ini"
    recipe.write_text(TINY.replace("batch = 64", "batch = 64\ninit = digits-s0.25"))
    lines = []
    graph = command.run(recipe, None, tmp_path / "m.h5", smoke=True, say=lines.append)
    shipped = h5file.load(find_model("digits-s0.25")).digest
    assert graph.facts["started from"] == f"digits-s0.25.h5, digest {shipped}" and any("starts from" in line for line in lines)
    assert (tmp_path / "m.h5.smoke" / "training.log").exists()
    with pytest.raises(InputError, match="no shipped model"):
        command.run(recipe, None, tmp_path / "x.h5", init="nonsense", smoke=True, say=quiet)


def test_the_float_network_of_a_run_gives_its_model_again(tmp_path):
    recipe = tmp_path / "tiny.ini"
    recipe.write_text(TINY.replace("quantized = yes\nepochs = 2", "quantized = yes\nepochs = 0"))
    whole = command.run(recipe, None, tmp_path / "whole.h5", tmp_path / "whole", say=quiet)
    float_network = tmp_path / "whole" / "float.pt"
    again = command.run(recipe, None, tmp_path / "again.h5", init=float_network, first="quantized", say=quiet)
    assert again.digest == whole.digest and again.facts["recipe"].startswith(whole.facts["recipe"])
    assert again.facts["started from"].startswith("float.pt, SHA-256 ")
    assert "run from stage quantized on" in again.facts["recipe"]
    with pytest.raises(InputError, match="no stage 'third'; it has gaussian, consistency, quantized"):
        command.run(recipe, None, tmp_path / "x.h5", init=float_network, first="third", say=quiet)
    with pytest.raises(InputError, match="goes on from weights of the stages before"):
        command.run(recipe, None, tmp_path / "x.h5", first="consistency", say=quiet)
    with pytest.raises(InputError, match="name their file with --init"):  # what a recipe starts from is not what it ends with
        recipe.write_text(TINY.replace("batch = 64", "batch = 64\ninit = digits-s0.25"))
        command.run(recipe, None, tmp_path / "x.h5", first="quantized", say=quiet)


def test_a_network_that_is_only_quantized_leaves_its_twin_in_the_checkpoint(tmp_path):
    recipe = tmp_path / "tiny.ini"
    recipe.write_text(TINY.replace("epochs = 2\nlearning_rate = 0 0", "epochs = 0\nlearning_rate = 0 0"))
    command.run(recipe, None, tmp_path / "m.h5", tmp_path / "work", say=quiet)
    arguments = [str(recipe), str(tmp_path / "work" / "checkpoint.pt"), str(tmp_path / "m.h5"), "--max", "5", "--samples", "4"]
    assert agreement.main(arguments) == 0


def test_a_stage_may_shift_by_less_than_the_recipe(tmp_path, monkeypatch):
    shifts = []

    def recorded(examples, size, generator, shift, *rest):
        shifts.append(shift)
        return batches(examples, size, generator, shift, *rest)

    monkeypatch.setattr(loop, "batches", recorded)
    recipe = tmp_path / "tiny.ini"
    recipe.write_text(TINY.replace("batch = 64", "batch = 64\nshift = 2").replace("copies = 2", "copies = 2\nshift = 0"))
    command.run(recipe, None, tmp_path / "model.h5", tmp_path / "work", smoke=True, say=quiet)
    assert shifts == [2, 0, 2]


def test_a_stage_may_have_a_batch_of_its_own_and_bounds(tmp_path, monkeypatch):
    sizes = []

    def recorded(examples, size, *rest):
        sizes.append(size)
        return batches(examples, size, *rest)

    monkeypatch.setattr(loop, "batches", recorded)
    recipe = tmp_path / "tiny.ini"
    recipe.write_text(TINY.replace("copies = 2", "copies = 2\nbatch = 128\nbounded = 0.01\nlargest = 2"))
    command.run(recipe, None, tmp_path / "model.h5", tmp_path / "work", say=quiet)
    assert sizes == [64, 64, 128, 64, 64]
    state = checkpoint.load(tmp_path / "work" / "float.pt")["network"]
    assert torch.isfinite(state["ceilings"]).all() and torch.isfinite(state["reach"]).all()
    for name, weight in state.items():
        if name.startswith("convolutions"):
            assert (weight.abs().amax((1, 2, 3)) / weight.square().mean((1, 2, 3)).sqrt()).max() < 2.05


def test_bad_requests_are_refused(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        command.run("digits-s0.25", None, tmp_path / "x.h5", tmp_path / "new", resume=True, say=quiet)
    (tmp_path / "new" / "checkpoint.pt").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(InputError, match="not a checkpoint"):
        command.run("digits-s0.25", None, tmp_path / "x.h5", tmp_path / "new", resume=True, say=quiet)
    with pytest.raises(InputError, match="one of them"):
        command.run("digits-s0.25", None, tmp_path / "x.h5", resume=True, init="float.pt", say=quiet)
    with pytest.raises(ResourceError, match="a file in a folder that exists"):
        command.run("digits-s0.25", None, tmp_path / "none" / "x.h5", smoke=True, say=quiet)
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        command.run("digits-s0.25", None, tmp_path / "x.h5", tmp_path / "file", smoke=True, say=quiet)
    recipe = parse_recipe(TINY.replace("digits_cnn", "transformer"), "mine")
    with pytest.raises(InputError, match="transformer"):
        loop.train(recipe, load_examples(recipe, None), tmp_path)


def test_no_test_digit_is_trained_on():
    data = load_examples(load_recipe("digits-s0.25"), None)
    from intsmooth.datasets import open_dataset

    held_out = {item.image.tobytes() for item in open_dataset("digits")}
    seen = [image.numpy().tobytes() for part in (data.training, data.validation) for image in part.images]
    assert len(seen) == 1797 - 364
    assert not held_out & set(seen)


def test_batches_shift_within_reach_and_mirror():
    images = torch.zeros(40, 6, 6, 1, dtype=torch.uint8)
    images[:, 2, 3] = 9
    examples = Examples(images, torch.arange(40))
    seen, labels = set(), []
    for levels, numbers in batches(examples, 10, torch.Generator().manual_seed(2), shift=1, flip=True):
        assert levels.shape == (10, 1, 6, 6) and levels.dtype == torch.float32
        assert (levels.sum((1, 2, 3)) == 9).all()
        labels += numbers.tolist()
        seen |= {tuple(position) for position in levels[:, 0].nonzero()[:, 1:].tolist()}
    assert sorted(labels) == list(range(40))
    assert seen <= {(row, column) for row in (1, 2, 3) for column in (1, 2, 3, 4)} and len(seen) > 4
    plain = next(batches(examples, 10, torch.Generator().manual_seed(2), shift=0, flip=False))[0]
    assert np.array_equal(plain[0, 0].numpy(), images[0, :, :, 0].float().numpy())


def test_enlarged_images_hold_whole_levels_of_the_image_they_come_from():
    steps = torch.arange(0, 240, 10, dtype=torch.uint8)
    images = steps[None, :, None, None] * torch.ones(1, 24, 24, 3, dtype=torch.uint8)  # a ramp from top to bottom
    examples = Examples(images.expand(64, -1, -1, -1), torch.arange(64))
    levels, labels = next(batches(examples, 64, torch.Generator().manual_seed(3), shift=0, flip=True, zoom=0.5))
    assert sorted(labels.tolist()) == list(range(64)) and levels.shape == (64, 3, 24, 24)
    assert torch.equal(levels, levels.round()) and levels.min() >= 0 and levels.max() <= 230
    slopes = levels[:, 0, 4:20, 12].diff(dim=1).mean(1)  # 10 where nothing is enlarged, 10 / 1.5 at most
    assert slopes.min() >= 10 / 1.5 - 0.5 and slopes.max() <= 10.5 and slopes.std() > 0.3
    across = images.transpose(1, 2)
    mirrored = 0
    for levels, _ in batches(
        Examples(across.expand(64, -1, -1, -1), examples.labels), 64, torch.Generator().manual_seed(4), 2, True, 1e-6
    ):
        signs = levels[:, 0, 12, 4:20].diff(dim=1).mean(1)
        assert ((signs.abs() - 10).abs() < 0.5).all()
        mirrored += int((signs < 0).sum())
        black = (levels[:, 0] == 0).all(2).sum(1)  # rows that moved in
        assert black.max() == 2 and black.min() == 0
    assert 16 < mirrored < 48


def test_learning_rate_rises_to_its_peak_and_falls_to_its_end():
    stage = Stage("s", 1, learning_rate=(0.1, 1.0, 0.2), warmup=0.25)
    rates = [loop.learning_rate(stage, step / 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[25] == 1.0 and rates[-1] == pytest.approx(0.2)
    assert np.all(np.diff(rates[:26]) > 0) and np.all(np.diff(rates[25:]) < 0)
    assert loop.learning_rate(Stage("s", 1, learning_rate=(0.3, 0.3, 0.0), warmup=0.0), 0.0) == 0.3
