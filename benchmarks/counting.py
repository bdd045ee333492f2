"""A pool that counts the bytes that would be sent, for benchmarks."""

import io
import pickle
from typing import Any

import jax

from jaxrl.distributed.pool import InlinePool, Shared


class Counting(InlinePool):
    """A pool in this process that counts the bytes that would be sent.

    through: bytes sent through the coordinator. between: bytes of shared values that workers would
    fetch from each other, counted each time a worker asks for one.
    """

    through = 0
    between = 0

    def _call(self, method: str, item: Any) -> Any:
        result = super()._call(method, item)
        self.through += self._size(item, fetched=True) + self._size(result, fetched=False)
        return result

    def _size(self, value: Any, fetched: bool) -> int:
        def reference(part: Any) -> str | None:
            if not isinstance(part, Shared):
                return None
            self.between += fetched * sum(array.nbytes for array in jax.tree.leaves(part.get()))
            return "a reference of twenty-eight bytes"

        file = io.BytesIO()
        pickler = pickle.Pickler(file, 5)
        pickler.persistent_id = reference
        pickler.dump(value)
        return file.tell()
