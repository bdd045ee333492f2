"""A pool that counts what would be sent, for benchmarks."""

import io
import pickle

import jax

from jaxrl.distributed.pool import InlinePool, Shared


class Counting(InlinePool):
    """A pool of this process that counts what would be sent: through the coordinator, and between workers what is
    shared by reference, each time that a worker asks for it."""

    through, between = 0, 0

    def _call(self, method, item):
        result = super()._call(method, item)
        self.through += self._size(item, fetched=True) + self._size(result, fetched=False)
        return result

    def _size(self, value, fetched):
        def reference(part):
            if not isinstance(part, Shared):
                return None
            self.between += fetched * sum(array.nbytes for array in jax.tree.leaves(part.get()))
            return "a reference of twenty-eight bytes"

        file = io.BytesIO()
        pickler = pickle.Pickler(file, 5)
        pickler.persistent_id = reference
        pickler.dump(value)
        return file.tell()
