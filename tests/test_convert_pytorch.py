"""Quantized models as PyTorch writes them: torch.ao's eager and FX modes, torchao's pt2e, exported to ONNX."""

import io
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch")
pytest.importorskip("onnx", reason="needs the package onnx")
pytest.importorskip("onnxruntime", reason="needs the package onnxruntime, the witness")

from onnx_quantizer import images, layer_steps  # noqa: E402

from intsmooth.convert import onnx as importer  # noqa: E402
from intsmooth.convert.peers import trace  # noqa: E402
from intsmooth.engine import Engine  # noqa: E402
from intsmooth.errors import UnsupportedError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's, about its own modules and exporters


class Network(torch.nn.Module):
    """The usual parts; `skip` adds a residual connection, `stubs` what eager mode wants to be told."""

    def __init__(self, skip, stubs):
        super().__init__()
        nn = torch.nn
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU())
        self.mean, self.flat, self.last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        self.sum = torch.ao.nn.quantized.FloatFunctional() if skip and stubs else None
        self.skip = skip
        self.start = torch.ao.quantization.QuantStub() if stubs else nn.Identity()
        self.end = torch.ao.quantization.DeQuantStub() if stubs else nn.Identity()

    def forward(self, x):
        x = self.pool(self.first(self.start(x)))
        y = self.second(x)
        if self.skip:
            y = self.sum.add(x, y) if self.sum is not None else x + y
        return self.end(self.last(self.flat(self.mean(y))))


def reals():
    return torch.from_numpy(np.moveaxis(images(32), -1, 1) / 255).float()


def network(**parts):
    torch.manual_seed(3)
    result = Network(**parts)
    with torch.no_grad():  # batch normalizations that have seen images
        result(reals())
    return result.eval()


def eager(engine):
    quantization = torch.ao.quantization
    result = network(skip=True, stubs=True)
    quantization.fuse_modules(result, [["first.0", "first.1", "first.2"], ["second.0", "second.1", "second.2"]], True)
    result.qconfig = quantization.get_default_qconfig(engine)
    quantization.prepare(result, inplace=True)
    result(reals())
    return quantization.convert(result), {}


def fx(engine):
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    mapping = torch.ao.quantization.get_default_qconfig_mapping(engine)
    result = prepare_fx(network(skip=True, stubs=False), mapping, (reals(),))
    result(reals())
    return convert_fx(result), {}


def pt2e(engine):
    """The newer path, through torch.export."""
    pytest.importorskip("onnxscript", reason="needs the package onnxscript, of torch.onnx's newer exporter")
    pytest.importorskip("torchao", reason="needs the package torchao")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    program = torch.export.export(network(skip=True, stubs=False), (reals()[:1],)).module()
    result = prepare_pt2e(program, quantizer)
    for image in reals():
        result(image[None])
    return convert_pt2e(result), {"dynamo": True, "verbose": False}


FORMS = [(eager, "fbgemm"), (eager, "qnnpack"), (fx, "qnnpack"), (fx, "x86")]


def exported(form, engine):
    """The bytes of the .onnx file."""
    if engine not in torch.backends.quantized.supported_engines:
        pytest.skip(f"this build of PyTorch has no {engine}")
    before, torch.backends.quantized.engine = torch.backends.quantized.engine, engine
    try:
        model, options = form(engine)
        file = io.BytesIO()
        options = options or {"dynamo": False, "opset_version": 17}
        with torch.no_grad(), warnings.catch_warnings():
            torch.onnx.export(model, (reals()[:1],), file, **options)
    finally:
        torch.backends.quantized.engine = before
    return file.getvalue()


@pytest.mark.parametrize("form, engine", FORMS, ids=[f"{form.__name__}-{engine}" for form, engine in FORMS])
def test_every_layer_is_within_one_step_of_onnx_runtime(tmp_path, form, engine):
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(form, engine))
    conversion = importer.load(path, input_scale="1/255")
    assert not {node.op for node in conversion.graph.nodes} & {"transpose", "pad"}
    levels = images(64)
    theirs = trace("onnxruntime", path, conversion, levels)
    steps = layer_steps(conversion, theirs)
    assert len(steps) >= 4
    for name, gaps in steps.items():  # the mean over 64 pixels of one scale has ties
        assert gaps.max() <= 1 and np.mean(gaps > 0) <= 0.05, name
    scores = theirs[conversion.graph.output].astype(int)
    ours = Engine(conversion.graph, backend="numpy").forward(levels).astype(int)
    assert np.abs(ours - scores).max() <= 2
    best = np.sort(scores, axis=1)
    clear = best[:, -1] - best[:, -2] > 2
    assert clear.any() and (ours.argmax(1) == scores.argmax(1))[clear].all()


@pytest.mark.slow
def test_floats_that_pt2e_leaves_are_refused_by_name():
    """Its x86 quantizer leaves results in floats that no convolution reads; quantizing the float model is the way."""
    with pytest.raises(UnsupportedError, match="is not quantized"):
        importer.load(exported(pt2e, "x86"), input_scale="1/255")
