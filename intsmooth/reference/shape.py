"""Operators that move values or pick one, without arithmetic on them. Axes and shapes leave out the batch."""

import math

import numpy as np


def flatten(x):
    """(N, ...) -> (N, features) in C order, also for an empty batch."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def concat(arrays, *, axis):
    """int8 arrays side by side along `axis` of the shape without batch."""
    return np.concatenate(arrays, axis=axis + 1)


def pad(x, *, padding, value):
    """int8, `padding` = (before, after) per dimension, flattened; the border holds `value`."""
    pairs = [(0, 0)] + [(padding[2 * i], padding[2 * i + 1]) for i in range(x.ndim - 1)]
    return np.pad(x, pairs, constant_values=np.int8(value))


def reshape(x, *, shape):
    """The same values in C order under another shape."""
    return x.reshape((x.shape[0], *shape))


def transpose(x, *, permutation):
    """Axis i of the result is axis permutation[i] of x."""
    return np.transpose(x, (0, *(axis + 1 for axis in permutation)))


def constant(value, *, batch):
    """The same int8 array for each of `batch` inputs."""
    return np.broadcast_to(value, (batch, *value.shape))


def argmax(x):
    """int32 (N, 1): position of the largest of all elements in C order, the lowest position where several are equal."""
    return np.argmax(flatten(x), axis=1).astype(np.int32)[:, np.newaxis]
