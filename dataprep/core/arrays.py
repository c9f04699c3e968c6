"""Between numpy and Arrow without copies, for numbers and booleans without nulls.

pyarrow's own conversions load pandas the first time, a fifth of a second in every process.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def spare_pandas() -> None:
    """Keep pyarrow from importing pandas where a list becomes an array: a third of a second, 40 MB, in each worker.

    It looks for pandas once, at its first list. Where something asks it for a data frame later, it looks again.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)


class _NoPandas(MetaPathFinder):
    """Finds no pandas, whether it is installed or not."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """The values of an array without nulls; booleans are unpacked, numbers share its memory."""
    assert array.null_count == 0
    data = array.buffers()[1]
    if pa.types.is_boolean(array.type):
        last = array.offset + len(array)
        bits = np.frombuffer(data, dtype=np.uint8, count=-(-last // 8)) if last else np.empty(0, dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little")[array.offset : last].view(bool)
    kind = np.dtype(array.type.to_pandas_dtype())
    if data is None:
        return np.empty(0, dtype=kind)
    return np.frombuffer(data, dtype=kind)[array.offset : array.offset + len(array)]


def to_arrow(values: NDArray[Any]) -> pa.Array:
    """An array of these values; booleans are packed, numbers share their memory."""
    if values.dtype == bool:
        data = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [None, data])
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, data])


def to_lists(counts: NDArray[Any], values: pa.Array) -> pa.ListArray:
    """Lists of so many values each, laid end to end."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(to_arrow(offsets), values, type=pa.list_(values.type))


def ragged(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of runs laid end to end: starts [7, 2], counts [2, 3] -> [7, 8, 2, 3, 4]."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)
