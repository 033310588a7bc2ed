"""From operators to instructions: one lowering function per operator, lower(node, input buffers, output buffer, blob)."""

from intsmooth.lowering import convolution, elementwise, movement, window

LOWERING = {
    "input_requantize": elementwise.input_requantize,
    "conv2d": convolution.conv2d,
    "conv2d_add": convolution.conv2d,
    "depthwise_conv2d": convolution.depthwise_conv2d,
    "fully_connected": convolution.fully_connected,
    "add": elementwise.binary,
    "sub": elementwise.binary,
    "mul": elementwise.binary,
    "requantize": elementwise.unary,
    "clamp": elementwise.unary,
    "lookup": elementwise.unary,
    "average_pool2d": window.pool,
    "max_pool2d": window.pool,
    "mean": convolution.mean,
    "softmax": window.softmax,
    "concat": movement.concat,
    "pad": movement.pad,
    "transpose": movement.transpose,
    "reshape": movement.reshape,
}
