"""The benchmarks' statistics, their networks, the limit's loop and `intsmooth bench`; figures are not looked at."""

import json
import pathlib
import sys
import types

import numpy as np
import pytest

from intsmooth import cli
from intsmooth.commands import bench as command
from intsmooth.engine import Engine
from intsmooth.errors import InputError
from intsmooth.h5file import save
from intsmooth.kernels import limit
from intsmooth.kernels.isa import ISA

FOLDER = pathlib.Path(__file__).parents[1] / "bench"
sys.path.append(str(FOLDER))

import harness  # noqa: E402
import networks  # noqa: E402
import operators  # noqa: E402
import resnet  # noqa: E402
import run_all  # noqa: E402


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when a run says so."""
    state = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(command.time, "perf_counter", lambda: state.now)
    monkeypatch.setattr(command.time, "sleep", lambda seconds: setattr(state, "now", state.now + seconds))
    return state


@pytest.fixture(scope="module")
def small():
    """A calibrated ResNet-8 on 16 x 16 images, its integers, and 32 noisy images."""
    net = resnet.random_resnet(8, 16, batch=16)
    return net, resnet.quantize(net), resnet.noisy_levels(32, 16, seed=9)


# turns and statistics


def test_rates_are_units_per_second_and_runs_take_turns(clock):
    order = []

    def worker(name, cost):
        def work(n):
            order.append(name)
            clock.now += 0.01 + n * cost  # a fixed cost that a longer run makes small

        return work

    rates = command.rates_per_second({"a": worker("a", 0.001), "b": worker("b", 0.004)}, 5, 100.0, pause=7.0)
    assert order[-10:] == ["a", "b"] * 5
    assert {name: len(values) for name, values in rates.items()} == {"a": 5, "b": 5}
    assert np.allclose(rates["a"], 1000, rtol=1e-3) and np.allclose(rates["b"], 250, rtol=1e-3)


def test_a_run_is_sized_from_the_shorter_of_two_measurements(clock):
    calls = []

    def work(n):
        calls.append(n)
        clock.now += n * 0.001 + (5.0 if len(calls) == 2 else 0)  # something else cut into the first measurement

    command.rates_per_second({"a": work}, 3, 1.0)
    assert calls[-3:] == [1000] * 3


def test_a_contender_is_counted_in_its_own_units(clock):
    def work(n):
        clock.now += 2.0 * n

    rates = harness.take_turns({"a": harness.Contender(work, 64)}, harness.Effort(rounds=4, seconds=1))
    assert rates["a"].values == pytest.approx((32.0,) * 4)


def test_spread_is_median_and_quartiles_and_ratios_pair_the_rounds():
    spread = harness.Spread((4.0, 1.0, 3.0, 2.0, 5.0))
    assert (spread.median, spread.quartiles) == (3.0, (2.0, 4.0))
    assert spread.text(".1f", " s") == "3.0 s (2.0 to 4.0)"
    slower = spread.scaled(0.5)
    assert spread.over(slower).values == (2.0,) * 5  # although both vary by a factor of five
    assert harness.Spread((7.0,)).quartiles == (7.0, 7.0)
    with pytest.raises(ValueError):
        spread.over(harness.Spread((1.0,)))


def test_fastest_names_the_best(clock):
    def worker(cost):
        return harness.Contender(lambda n: setattr(clock, "now", clock.now + n * cost))

    trial = {"slow": worker(0.3), "quick": worker(0.1), "middle": worker(0.2)}
    assert harness.fastest(trial, harness.Effort()) == "quick"


def test_together_runs_all_and_passes_errors_on():
    seen = []
    harness.together([lambda n: seen.append(n), lambda n: seen.append(-n)])(3)
    assert sorted(seen) == [-3, 3]

    def broken(n):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        harness.together([lambda n: None, broken])(1)


def test_nothing_is_timed_after_a_failed_check():
    harness.require(True, "never shown")
    with pytest.raises(SystemExit, match="nothing is timed: it differs"):
        harness.require(False, "it differs")


# reports


def test_report_is_markdown_and_a_missed_target_stands_out():
    report = harness.Report("Title")
    report.text("one\n   line")
    report.table(("name", "value"), [("a", 1), ("b", "2 %")])
    report.target("speed", ">= 2x", "1.5x", False)
    assert report.markdown() == (
        "## Title\n\none line\n\n| name | value |\n| :-- | --: |\n| a | 1 |\n| b | 2 % |\n"
    )
    assert "| speed | >= 2x | 1.5x | **no** |" in harness.target_table(report.targets)


def test_results_hold_facts_targets_and_reports(monkeypatch):
    report = harness.Report("Speed", ["text"], [{"what": "w", "goal": "g", "reached": "r", "met": True}])
    facts = harness.machine_facts()
    assert facts["processor"] and facts["kernels"] == ISA and facts["numpy"] == np.__version__
    text = run_all.assemble([report], facts | {"load": "0.10"}, 90.0, 0.2, quick=False)
    for part in ("| processor |", "| w | g | r | yes |", "## Speed\n\ntext", "1.5 minutes"):
        assert part in text
    assert "unreliable" not in text and "mean nothing" not in text
    text = run_all.assemble([report], facts | {"load": "3.00"}, 90.0, 3.0, quick=True)
    assert "unreliable" in text and "mean nothing" in text


def test_every_question_is_a_program(tmp_path, monkeypatch):
    own = {path.stem for path in FOLDER.glob("*.py") if "\ndef question(effort" in path.read_text()}
    alone = {"importers", "scale"}  # these take long, and write pages of their own
    assert alone < own and own - alone <= set(run_all.QUESTIONS) and len(own - alone) == 6
    monkeypatch.setattr(run_all, "FOLDER", tmp_path)
    (tmp_path / "litert.py").write_text("import sys; print('half'); sys.exit('nothing is timed: broken')")
    failed = run_all.run_question("litert", True, tmp_path, 60)
    assert failed.blocks[0] == "Failed with exit code 1." and "nothing is timed: broken" in failed.blocks[1]
    (tmp_path / "litert.py").write_text("import time; time.sleep(60)")
    assert "Not finished" in run_all.run_question("litert", True, tmp_path, 0.2).blocks[0]
    times = {"ns_per_coordinate": {"intsmooth, rounded": [1.0, 1.2, 9.0]}}
    script = f"import sys; open(sys.argv[2], 'w').write({json.dumps(json.dumps(times))}); print('rows')"
    (tmp_path / "noise.py").write_text(script)
    noise = run_all.run_question("noise", False, tmp_path, 60)
    assert noise.blocks == ["```\nrows\n```"] and noise.targets[0]["reached"] == "1.200" and noise.targets[0]["met"]


# the networks


def test_the_integer_network_computes_what_the_floats_do(small):
    net, quantized, levels = small
    scores = Engine(quantized.graph, threads=1).forward(levels)
    assert (scores[:4] == Engine(quantized.graph, "numpy").forward(levels[:4])).all()
    reals = resnet.float_scores(net, levels)
    assert np.corrcoef(scores.ravel(), reals.ravel())[0, 1] > 0.97
    assert len(set(scores.argmax(1))) > 3  # classes differ between images


def test_torch_computes_the_same_and_counts_all_votes(small):
    torch = pytest.importorskip("torch")
    import peer_torch

    net, _, levels = small
    reals, images = resnet.float_scores(net, levels), torch.from_numpy(resnet.real_values(levels))
    for folded in (False, True):
        model = peer_torch.TorchResNet(net, folded)
        np.testing.assert_allclose(peer_torch.scores(model, images), reals, atol=1e-4)
    torch.manual_seed(0)
    counts = peer_torch.count_votes(model, images[0], 70, batch=32)
    assert counts.sum() == 70 and counts.shape == (resnet.CLASSES,)


def test_onnx_runtime_computes_the_same(small):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    import peer_onnx

    net, _, levels = small
    # Without VNNI, ONNX Runtime adds two products in 16 bits, saturating: it computes what the model says for weights
    # of 7 bits only.
    quantized = resnet.quantize(net, largest=63)
    reals, trace = resnet.float_scores(net, levels), Engine(quantized.graph, threads=1).trace(levels)
    session = peer_onnx.session(peer_onnx.float_model(net), 1)
    np.testing.assert_allclose(session.run(None, {"x": resnet.real_values(levels)})[0], reals, atol=1e-4)
    x = (trace["input"].astype(np.int16) + 128).astype(np.uint8).transpose(0, 3, 1, 2)
    found = []
    for shortcut in peer_onnx.SHORTCUTS:
        model = peer_onnx.integer_model(net, quantized, shortcut)
        found.append(peer_onnx.session(model, 1).run(None, {"x": np.ascontiguousarray(x)})[0].astype(int) - 128)
    assert (found[0] == found[1]).all()  # the two shortcuts are the same function
    assert np.corrcoef(found[0].ravel(), trace["scores"].ravel())[0, 1] > 0.98


@pytest.mark.parametrize(
    ("name", "millions"), [("ResNet-20", 40.55), ("ResNet-56", 125.49), ("DS-CNN", 2.66), ("MobileNetV2", 300.77)]
)
def test_networks_have_the_published_multiply_adds(name, millions):
    assert round(command.multiply_adds(networks.NETWORKS[name]()) / 1e6, 2) == millions


@pytest.mark.slow
@pytest.mark.parametrize(("name", "millions"), [("MobileNetV1", 568.74), ("ResNet-50", 4089.18)])
def test_large_networks_have_the_published_multiply_adds(name, millions):
    assert round(command.multiply_adds(networks.NETWORKS[name]()) / 1e6, 2) == millions


def test_layers_are_collected_once_and_timed():
    layers, whole, work = operators.collect(["DS-CNN"])
    windows = {key: layer.uses for key, layer in layers.items()}
    assert windows["depthwise_conv2d", "25x5x64 -> 25x5x64", "3x3"] == {"DS-CNN": 4}
    assert windows["conv2d", "49x10x1 -> 25x5x64", "10x4, stride 2"] == {"DS-CNN": 1}
    assert work["DS-CNN"] == sum(layer.work * layer.uses["DS-CNN"] for layer in layers.values())
    for contender in [*whole.values(), *(layer.contender for layer in layers.values())]:
        contender.work(1)


def test_ceilings():
    graph = networks.odd_shapes()
    found = {operators.describe(graph, node): operators.ceiling(node) for node in graph.nodes}
    assert found["conv2d", "16x16x1 -> 16x16x4", "3x3"] == 3 / 4 * 4 / 16
    assert found["conv2d", "16x16x12 -> 16x16x17", "3x3"] == 17 / 32
    assert found["conv2d", "16x16x64 -> 16x16x64", "3x3, groups 32"] == 2 / 4 * 2 / 16
    assert found["depthwise_conv2d", "8x8x24 -> 8x8x24", "7x7"] == 0.25 * 24 / 32
    assert found["max_pool2d", "8x8x24 -> 4x4x24", "2x2, stride 2"] is None


# the limit


@pytest.mark.parametrize("shape", limit.LOOPS[ISA])
def test_the_limits_loop_does_the_products_that_it_counts(shape):
    pixels, blocks, in_registers = shape
    rng = np.random.default_rng(3)
    x, weights = rng.integers(0, 256, (pixels, 28), np.uint8), rng.integers(-128, 128, (7, blocks, 64), np.int8)
    out = rng.integers(-1000, 1000, (pixels, blocks, 16), np.int32)
    fours, rows = x.reshape(pixels, 7, 4).astype(np.int64), weights.reshape(7, blocks, 16, 4).astype(np.int64)
    if in_registers:
        fours, rows = np.broadcast_to(fours[:1, :1], fours.shape), np.broadcast_to(rows[:1], rows.shape)
    expected = out + 2 * np.einsum("psk,sbck->pbc", fours, rows)
    limit.dot_loop(*shape)(x, weights, 7, 2, out)
    np.testing.assert_array_equal(out, expected)


def test_the_limit_counts_all_threads():
    pixels, blocks, _ = limit.fastest_loop()
    assert limit.fastest_loop() in limit.LOOPS[ISA]
    assert limit.run_dots(5, threads=3) == 3 * limit.run_dots(5) == 15 * limit.STEPS * pixels * blocks * 64


# intsmooth bench


def test_bench_command(small, tmp_path, capsys, monkeypatch):
    save(small[1].graph, tmp_path / "net.h5")
    monkeypatch.setattr(command, "_ROUNDS", 2)
    assert cli.main(["bench", str(tmp_path / "net.h5"), "--threads", "1", "--seconds", "0.01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("processor") and ISA in lines[1] and "1 thread" in lines[1]
    assert any(line.startswith("limit") and "G multiply-adds/s" in line for line in lines)
    row = lines[-1].split()
    assert row[0] == "net" and int(row[1].replace(",", "")) == command.multiply_adds(small[1].graph)
    samples, seconds = float(row[3].replace(",", "")), float(row[-2].replace(",", ""))
    assert samples * seconds == pytest.approx(command.N, rel=0.05)


def test_bench_command_refuses(tmp_path, capsys, monkeypatch):
    assert cli.main(["bench", "digits", "--seconds", "nan"]) == InputError.exit_code
    assert cli.main(["bench", "digits", "--threads", "0"]) == InputError.exit_code
    assert cli.main(["bench", str(tmp_path / "none.h5")]) == InputError.exit_code
    monkeypatch.setattr("intsmooth.shipped.shipped_models", dict)
    assert cli.main(["bench"]) == InputError.exit_code
    messages = capsys.readouterr().err
    assert "--seconds is nan" in messages and "threads is 0" in messages and "no model is shipped" in messages


def test_the_processor_has_a_name(monkeypatch):
    assert command.processor_name()
    monkeypatch.setattr(pathlib.Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert command.processor_name()
