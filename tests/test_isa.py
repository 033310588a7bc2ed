"""The kernels of every instruction set that this machine can run give the bits of the twins."""

import os
import pathlib
import subprocess
import sys

import pytest

from intsmooth.errors import InputError
from intsmooth.kernels import isa

HERE = pathlib.Path(__file__).parent
OTHERS = [name for name in isa.supported() if name != isa.ISA]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_kernels_and_sampler_with(name):
    """Runs the comparisons with the twins again in a process that is told to use another instruction set."""
    environment = {**os.environ, "INTSMOOTH_ISA": name}
    command = [sys.executable, "-m", "pytest", "-q", "-x", str(HERE / "test_kernels.py"), str(HERE / "test_chacha.py")]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert outcome.returncode == 0, outcome.stdout[-4000:] + outcome.stderr[-2000:]


def test_features_decide():
    avx512 = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"}
    assert isa.supported(frozenset(avx512 | {"avx2"})) == ("vnni512", "vnni256", "avx2", "portable")
    assert isa.supported(frozenset({"avx2", "avxvnni"})) == ("vnni256", "avx2", "portable")
    assert isa.supported(frozenset({"avx2"})) == ("avx2", "portable")
    assert isa.supported(frozenset({"neon"})) == ("portable",)


def test_an_instruction_set_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("INTSMOOTH_ISA", "sve2")
    with pytest.raises(InputError, match="INTSMOOTH_ISA is 'sve2'"):
        isa.select()
