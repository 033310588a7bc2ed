"""precision = auto: bfloat16 only where the hardware multiplies it."""

import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra [train])")

from intsmooth.training.precision import multiplies_bfloat16, resolve  # noqa: E402

CPU = torch.device("cpu")
ZEN3, SKYLAKE = {"avx2", "fma", "f16c"}, {"avx512f", "avx512bw", "avx512vl", "avx512vnni"}


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (ZEN3, False),
        (SKYLAKE, False),
        (SKYLAKE | {"avx512bf16"}, True),
        (SKYLAKE | {"amx-tile", "amx-bf16"}, True),
        (SKYLAKE | {"amx-tile", "amx-int8"}, False),
        ({"neon", "dotprod"}, False),
        ({"neon", "bf16", "i8mm"}, True),
    ],
)
def test_auto_looks_for_instructions(features, expected, monkeypatch):
    assert multiplies_bfloat16(CPU, frozenset(features)) is expected
    monkeypatch.setattr("intsmooth.training.precision.host_features", lambda: frozenset(features))
    assert resolve("auto", CPU) == ("bfloat16" if expected else "float32")


def test_a_recipe_that_says_which_is_obeyed():
    assert [resolve(word, CPU) for word in ("float32", "bfloat16")] == ["float32", "bfloat16"]


def test_the_features_of_this_processor_are_read_by_name():
    assert isinstance(multiplies_bfloat16(CPU), bool)
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), None)
    if flags is None:
        pytest.skip("no flags in /proc/cpuinfo: not Linux on x86")
    listed = set(flags.split(":", 1)[1].split())
    assert multiplies_bfloat16(CPU) is bool({"avx512_bf16", "amx_bf16"} & listed)


def _cpuinfo():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []
