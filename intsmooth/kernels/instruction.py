"""The instruction: one row of int32 that a kernel reads. The columns mean the same for every kernel.

OPERATION is an index into the plan's list of kernels (see kernels/table.py).
Addresses are byte offsets: SOURCE, SECOND and TARGET into the arena, CONSTANTS and WEIGHTS into the constant blob.
An activation q is stored as the byte q + 128, and zero points and clamps are given for that byte.
"""

(OPERATION,
 SOURCE, SOURCE_ROW, SOURCE_PIXEL,      # first byte read, and the steps to the next output row and column
 SECOND, SECOND_ROW, SECOND_PIXEL,      # the same for a second input: skip connection, operand b
 TARGET, TARGET_ROW, TARGET_PIXEL,      # first byte written, and the steps to the next output row and column
 ROWS, COLUMNS, CHANNELS,               # extent of the output
 SOURCE_ZERO, SECOND_ZERO, TARGET_ZERO, LOW, HIGH,
 CONSTANTS, WEIGHTS,
 A0, A1, A2, A3, A4, A5, A6, A7,        # what they mean is said by each operation's kernel
 ) = range(28)
WIDTH = 32
