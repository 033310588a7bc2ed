"""The table of operators: name -> record with schema, shape rule, accumulator bound and cost.

A new operator needs one line here, its file, its kernel, its twin, its test and a row of weights/FORMAT.md.
"""

from intsmooth.ops.activation import ARGMAX, LOOKUP, SOFTMAX
from intsmooth.ops.conv2d import CONV2D, CONV2D_ADD
from intsmooth.ops.depthwise_conv2d import DEPTHWISE_CONV2D
from intsmooth.ops.elementwise import ADD, MUL, SUB
from intsmooth.ops.fully_connected import FULLY_CONNECTED
from intsmooth.ops.mean import MEAN
from intsmooth.ops.operator import Operator
from intsmooth.ops.pool2d import AVERAGE_POOL2D, MAX_POOL2D
from intsmooth.ops.rearrange import CONCAT, CONSTANT, PAD, RESHAPE, TRANSPOSE
from intsmooth.ops.requantize import CLAMP_OPERATOR, INPUT_REQUANTIZE, REQUANTIZE

_ALL = (
    INPUT_REQUANTIZE,
    CONV2D,
    CONV2D_ADD,
    DEPTHWISE_CONV2D,
    FULLY_CONNECTED,
    ADD,
    SUB,
    MUL,
    AVERAGE_POOL2D,
    MAX_POOL2D,
    MEAN,
    REQUANTIZE,
    CLAMP_OPERATOR,
    CONCAT,
    PAD,
    RESHAPE,
    TRANSPOSE,
    LOOKUP,
    SOFTMAX,
    ARGMAX,
    CONSTANT,
)
OPERATORS: dict[str, Operator] = {operator.name: operator for operator in _ALL}
