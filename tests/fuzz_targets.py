"""What the fuzzer attacks: per kind of file, valid examples, a way to damage them, and what reading one may lead to."""

import math
import os
import pathlib
import random
import struct
import tempfile

import fuzz_mutations
import models
import numpy as np
import pytest

from intsmooth import h5file
from intsmooth.certificate_table import build_table, load_table, save_table
from intsmooth.curve import curve_table
from intsmooth.errors import FormatError, InputError, ModelError, ResultsError
from intsmooth.reference import engine
from intsmooth.results import COLUMNS, SETTINGS, read_results
from intsmooth.results_writer import ResultsWriter

END_OF_FILE = 40  # where HDF5's superblock says how long the file is


class Target:
    """`mutate` makes one damaged file; `read` gives "refused" (`refusals` was raised), or what became of the file."""

    refusals: tuple = (ModelError,)

    def __init__(self):
        self.valid = self.seeds()

    def seeds(self) -> list[bytes]:
        raise NotImplementedError

    def mutate(self, rng: random.Random) -> bytes:
        return fuzz_mutations.flip_bytes(rng.choice(self.valid), rng, self.valid)

    def read(self, data: bytes) -> str:
        raise NotImplementedError

    def outcome(self, data: bytes) -> str:
        try:
            return self.read(data)
        except self.refusals as error:
            message = str(error)
            assert 10 < len(message) < 50_000, "the message is empty or endless"
            assert "\x1b" not in message, "the message controls a terminal"
            return "refused"


def smallest(rng) -> models.Graph:
    """Two nodes: the smallest model that classifies."""
    b = models.NetworkBuilder(rng, (3,), levels=(0, 16))
    return b.graph(b.dense(b.start, 2), facts={"source": "random", "licence": "CC0"})


def with_length(data: bytes, rng: random.Random) -> bytes:
    """An HDF5 file, mostly with its right length written in it, so that the rest is looked at."""
    if len(data) < END_OF_FILE + 8 or not rng.randrange(8):
        return data
    return data[:END_OF_FILE] + struct.pack("<Q", len(data)) + data[END_OF_FILE + 8 :]


class ModelFile(Target):
    """Model files (.h5): refused, or the unchanged model."""

    def seeds(self):
        rng = np.random.default_rng(0)
        small, conv, every = (
            h5file.encode(model(rng)) for model in (smallest, models.tiny_conv, models.every_operator)
        )
        self.digests = {h5file.decode(data).digest for data in (small, conv, every)}
        return [small] * 4 + [conv] * 2 + [every]  # small files are quicker, and most of their bytes matter

    def mutate(self, rng):
        return with_length(super().mutate(rng), rng)

    def read(self, data):
        assert h5file.decode(data).digest in self.digests, "a changed model was accepted"
        return "unchanged"


class OnDisk(Target):
    """Files whose readers take a path: written where no disk is involved, if there is such a place."""

    def __init__(self):
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.TemporaryDirectory(dir=memory)
        self.path = pathlib.Path(self.folder.name, "file")
        super().__init__()


class CertificateTableFile(OnDisk):
    """Tables of certificates (.h5): refused, or the unchanged table."""

    refusals = (FormatError,)

    def seeds(self):
        tables = [
            build_table(50, sigma="0.25", dimension=64, unit=16, tv="1/3000000000000"),
            build_table(300, sigma="0.5", dimension=64, unit=16, law="discrete", tau="1.25"),
        ]
        self.digests, valid = {table.digest for table in tables}, []
        for table in tables:
            save_table(table, self.path)
            valid.append(self.path.read_bytes())
        return valid

    def mutate(self, rng):
        return with_length(super().mutate(rng), rng)

    def read(self, data):
        self.path.write_bytes(data)
        assert load_table(self.path).digest in self.digests, "a changed table was accepted"
        return "unchanged"


class ResultsFile(OnDisk):
    """Results files: refused, or a table whose curve can be printed; and a run that would go on in it writes or not."""

    refusals = (ResultsError, InputError)
    settings = dict(zip(SETTINGS, ("100", "0.001", "0.25", "rounded", "0x5", "fixed", "0xab", "16"), strict=True))

    def seeds(self):
        rows = []
        for i in range(4):
            row = dict.fromkeys(COLUMNS, "0") | self.settings
            row |= {"idx": str(i), "predict": str(i - 1), "radius": f"0.{i}25" if i else "0.0", "n": "1000"}
            row |= {"correct": str(int(i == 1))}  # the label is 0
            row |= {"time": "0:00:01.5", "image": "0x" + "ab" * 32, "counts": "[1,2,997]", "extra": "{}"}
            rows.append("\t".join(row[name] for name in COLUMNS))
        ours = "\n".join(["\t".join(COLUMNS), *rows, ""])
        theirs = (
            "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t3\t3\t1.53\t1\t0:00:15.9\n20\t8\t-1\t0.0\t0\t0:00:15.8\n"
        )
        return [ours.encode(), theirs.encode()]

    def mutate(self, rng):
        if rng.randrange(3):
            return fuzz_mutations.change_text(rng.choice(self.valid), rng)
        return super().mutate(rng)

    def read(self, data):
        self.path.write_bytes(data)
        try:
            with ResultsWriter(self.path, self.settings) as writer:
                kept = self.path.read_bytes()
                assert kept.startswith(data[: data.rfind(b"\n") + 1]) and len(writer.rows) + 1 == kept.count(b"\n")
        except ResultsError:
            assert self.path.read_bytes() == data, "a refused file was changed"
        self.path.write_bytes(data)
        text = curve_table([read_results(self.path)])
        assert 20 < len(text) < 20_000 and "nan" not in text
        return "read"


class Imported(Target):
    """Importers: refused, or a graph; one that is small runs on an image without any warning of NumPy's."""

    def convert(self, data: bytes):
        raise NotImplementedError

    def read(self, data):
        graph = self.convert(data).graph
        if sum(math.prod(tensor.shape) for tensor in graph.tensors.values()) > 4000:
            return "large"
        with np.errstate(all="raise"):
            engine.run(graph, np.full((1, *graph.input_shape), 99, np.int16))
        return "ran"


class TfliteFile(Imported):
    """.tflite models: bytes of the file, words of the flatbuffer, parts of the network."""

    def seeds(self):
        pytest.importorskip("tflite", reason="needs the packages of the test extra")
        import tflite_networks as networks

        relu, x, y = networks.relu_network()
        dense = networks.OneOperator((1, 4))
        weights = dense.constant(np.ones((3, 4), np.int8), scale=0.1)
        dense.y("FULLY_CONNECTED", [dense.x, weights, -1], (1, 3), "FullyConnectedOptions", FusedActivationFunction=0)
        large = [networks.small_model(), networks.moving_model()]
        self.builders = [(relu, ([x], [y]))] * 12  # small files are quicker, and most of their bytes matter
        self.builders += [(one.model, ([one.x], [one.result])) for one in [dense] * 10 + large]
        return [builder.build(*ends) for builder, ends in self.builders]

    def mutate(self, rng):
        if rng.randrange(8):
            return super().mutate(rng)
        return fuzz_mutations.change_parts(*rng.choice(self.builders), rng)

    def convert(self, data):
        from intsmooth.convert import tflite

        return tflite.load(data)


class OnnxFile(Imported):
    """.onnx models, quantized: bytes of the file, fields of the protocol buffer."""

    refusals = (ModelError, InputError)  # the arguments speak of a model, and may not fit what became of it

    def seeds(self):
        onnx = pytest.importorskip("onnx", reason="needs the package onnx")
        import onnx_builder as networks

        def one(layer, shape=(2, 3, 3)):
            b = networks.Quantized(shape)
            return b.bytes(b.real(b.layer("Flatten", [layer(b, b.start())])))

        valid = [
            one(lambda b, x: b.layer("Relu", [x])),
            one(lambda b, x: b.layer("Conv", [x, b.weights(3, 2, 3, 3)], pads=[1, 1, 1, 1], group=1)),
            one(lambda b, x: b.layer("MaxPool", [x], kernel_shape=[2, 2], strides=[1, 1])),
            one(lambda b, x: b.layer("Transpose", [x], perm=[0, 2, 3, 1])),
            one(lambda b, x: b.integer(b.node("Concat", [b.real(x), b.real(x)], axis=1))),
        ] * 3 + [networks.quantized_network()]  # small files are quicker, and most of their bytes matter
        self.protos = [onnx.ModelProto.FromString(data) for data in valid]
        return valid

    def mutate(self, rng):
        if rng.randrange(2):
            return super().mutate(rng)
        try:
            return fuzz_mutations.change_fields(rng.choice(self.protos), rng)
        except (ValueError, TypeError):  # a value that its field does not take
            return super().mutate(rng)

    def convert(self, data):
        from intsmooth.convert import onnx

        return onnx.load(data, input_scale="1/255")


TARGETS = {
    "h5": ModelFile,
    "tflite": TfliteFile,
    "onnx": OnnxFile,
    "table": CertificateTableFile,
    "results": ResultsFile,
}
