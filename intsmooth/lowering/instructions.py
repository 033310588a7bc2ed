"""One instruction before it becomes a row of the table: an operation and the columns that it sets.

An operation is a name and what its kernel is specialised for, as kernels/table.py reads it: ("conv", 8, 2, 32), ("copy",).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from intsmooth.errors import UnsupportedError
from intsmooth.kernels.instruction import OPERATION, SECOND, SOURCE, TARGET, WIDTH


@dataclass(frozen=True)
class Instruction:
    operation: tuple
    fields: Mapping[int, int]

    def row(self, operations: list[tuple]) -> np.ndarray:
        """The int32 row that the interpreter reads; `operations` lists the kernels in use and grows when needed."""
        if self.operation not in operations:
            operations.append(self.operation)
        row = np.zeros(WIDTH, np.int64)
        row[OPERATION] = operations.index(self.operation)
        for column, value in self.fields.items():
            row[column] = value
        assert min(row[SOURCE], row[SECOND], row[TARGET]) >= 0, "an instruction begins before the arena"
        largest = int(np.abs(row).max())
        if largest > 2**31 - 1:
            raise UnsupportedError(f"the model needs an address of {largest} bytes; the engine's limit is 2^31 - 1")
        return row.astype(np.int32)
