"""The kernels by operation, compiled one by one when a plan asks for them.

Every kernel has the same signature, kernel(code, levels, arena, scratch, blob): one instruction int32 (WIDTH,), the noisy
levels int16, the activations uint8, scratch int32, the constants uint8. The interpreter calls kernels through their
addresses: a model compiles what it needs and no more, and LLVM optimises each kernel by itself.
"""

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from intsmooth.kernels import elementwise, pooling, softmax
from intsmooth.kernels.conv_rows import conv_rows_layer
from intsmooth.kernels.convolution import conv_layer
from intsmooth.kernels.depthwise import depthwise_layer

FAMILIES = {"conv": conv_layer, "conv_rows": conv_rows_layer, "depthwise": depthwise_layer}
SINGLE = {
    "input": elementwise.input_requantize,
    "binary": elementwise.binary,
    "lookup": elementwise.lookup,
    "copy": elementwise.copy,
    "fill_border": elementwise.fill_border,
    "average_pool": pooling.average_pool,
    "max_pool": pooling.max_pool,
    "softmax": softmax.softmax,
}

_BYTES = types.Array(types.uint8, 1, "C")
SIGNATURE = (types.Array(types.int32, 1, "C"), types.Array(types.int16, 1, "C"), _BYTES, types.Array(types.int32, 1, "C"), _BYTES)


def kernel(operation: tuple):
    """The jitted function of an operation: a name, and for a family the numbers that it is specialised for."""
    name, *numbers = operation
    return FAMILIES[name](*numbers) if numbers else SINGLE[name]


def addresses(operations) -> np.ndarray:
    """Machine addresses (intp) of the kernels, compiling those that are not compiled yet."""
    found = []
    for operation in operations:
        function = kernel(operation)
        function.compile(SIGNATURE)
        compiled = function.overloads[SIGNATURE]
        found.append(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
    return np.array(found, np.intp)


@intrinsic
def call_kernel(typing, address, code, levels, arena, scratch, blob):
    """Call the kernel at `address` (intp); kernels return nothing and raise nothing."""
    arguments = (code, levels, arena, scratch, blob)

    def codegen(context, builder, signature, values):
        function = context.call_conv.get_function_type(types.none, arguments)
        pointer = builder.inttoptr(values[0], function.as_pointer())
        context.call_conv.call_function(builder, pointer, types.none, arguments, values[1:])
        return context.get_dummy_value()

    return types.void(types.intp, *arguments), codegen
