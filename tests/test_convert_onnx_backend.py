"""ONNX's own node tests of the integer operators, run on this package's arithmetic."""

import itertools
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")

from fractions import Fraction  # noqa: E402

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from intsmooth.convert.onnx_backend import EXCLUDED, OPERATORS, Backend, Prepared  # noqa: E402
from intsmooth.errors import UnsupportedError  # noqa: E402

WORDS = ("qlinear", "convinteger", "matmulinteger", "quantizelinear")
# Published cases where the package gives another integer than rounding half to even.
DIFFERENT = set()


def node_tests():
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other operators' cases
        cases = load_model_tests(kind="node")
    return {case.name: case for case in cases if any(word in case.name for word in WORDS)}


@pytest.fixture(scope="module")
def cases():
    found = node_tests()
    assert len(found) >= 30
    return found


def ours(cases):
    return {name: case for name, case in cases.items() if not any(part in name for part in EXCLUDED)}


def results(case, rounding):
    """(found, expected) arrays of a case."""
    backend = type("Chosen", (Backend,), {"rounding": rounding})
    for inputs, outputs in case.data_sets:
        found = backend.run_model(case.model, [_array(item) for item in inputs])
        yield from zip(found, [_array(item) for item in outputs], strict=True)


def _array(item):
    return numpy_helper.to_array(item) if hasattr(item, "data_type") else np.asarray(item)


def test_all_published_cases_of_our_types_pass(cases):
    chosen = ours(cases)
    assert {case.model.graph.node[0].op_type for case in chosen.values()} == set(OPERATORS)
    for name, case in chosen.items():
        assert Backend.is_compatible(case.model)
        for found, expected in results(case, "onnx"):
            np.testing.assert_array_equal(found, expected, err_msg=name, strict=True)


def test_rounding_of_the_package_differs_where_it_is_said_to(cases):
    different = set()
    for name, case in ours(cases).items():
        for found, expected in results(case, "package"):
            gap = np.abs(found.astype(np.float64) - expected.astype(np.float64))
            assert gap.max(initial=0) <= 1, name
            different |= {name} if gap.any() else set()
    assert different == DIFFERENT


def test_what_is_left_out_is_left_out_for_a_type_that_is_not_ours(cases):
    refused = 0
    for name, case in cases.items():
        if name in ours(cases) or case.model.graph.node[0].op_type not in OPERATORS:
            continue
        with pytest.raises((UnsupportedError, TypeError, ValueError)):
            list(results(case, "onnx"))
        refused += 1
    assert refused >= 10


def qlinear_matmul(scales, zero_type=TensorProto.INT8):
    names = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]
    scales = zip(("as", "bs", "ys"), scales, strict=True)
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [], [scale]) for name, scale in scales]
    constants += [helper.make_tensor(name, zero_type, [], [0]) for name in ("az", "bz", "yz")]
    values = [helper.make_tensor_value_info(name, zero_type, None) for name in ("a", "b", "y")]
    node = helper.make_node("QLinearMatMul", names, ["y"])
    return helper.make_model(helper.make_graph([node], "g", values[:2], values[2:], constants)).SerializeToString()


def test_exact_ties_go_to_even_numbers_and_the_package_rounds_them_away():
    """Every accumulator from -254 to 254 times 1/2: all odd ones are ties."""
    a = np.arange(-127, 128, dtype=np.int8).reshape(-1, 1)
    accumulators = np.array([n * b for n, b in itertools.product(range(-127, 128), (1, 2))]).reshape(-1, 2)
    content = qlinear_matmul((1.0, 1.0, 2.0))
    b = np.array([[1, 2]], np.int8)
    expected = [[round(Fraction(int(n), 2)) for n in row] for row in accumulators]  # Python rounds half to even
    np.testing.assert_array_equal(Prepared(content).run([a, b])[0], expected)
    package = Prepared(content, "package").run([a, b])[0]
    np.testing.assert_array_equal(package, (accumulators + 1) // 2)  # ties towards plus infinity: no shift is left
    assert (package != np.array(expected)).mean() == pytest.approx(1 / 8, abs=0.01)
