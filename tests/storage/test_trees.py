"""Conversion of pytrees to named arrays and back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.errors import UserError
from jaxrl.storage import checkpoint
from jaxrl.storage.trees import flatten, unflatten


class State(NamedTuple):
    params: Any
    moments: Any
    carry: Any
    key: Any
    count: Any


def state(width: int = 4, impl: str = "threefry2x32") -> State:
    kernel = jnp.arange(4 * width, dtype=jnp.float32).reshape(4, width)
    return State(
        params={"actor": {"dense_0": {"kernel": kernel}}},
        moments=(jnp.ones(width, jnp.bfloat16), (jnp.array(3, jnp.int32), jnp.array(True)), None),
        carry=(), key=jax.random.split(jax.random.key(7, impl=impl), 3), count=jnp.uint32(5))


def same(left: Any, right: Any) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            assert jax.random.key_impl(a) == jax.random.key_impl(b)
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_names_are_slash_paths():
    assert sorted(flatten(state())) == ["count", "key", "moments/0", "moments/1/0", "moments/1/1",
                                        "params/actor/dense_0/kernel"]
    assert list(flatten(jnp.ones(2))) == ["value"]
    with pytest.raises(ValueError, match="same name"):
        flatten({"a/b": 1, "a": {"b": 2}})


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_a_tree_goes_to_disk_and_back(tmp_path, impl):
    tree = state(impl=impl)
    checkpoint.save(tmp_path, 1, flatten(tree), {})
    arrays, _ = checkpoint.load(tmp_path)
    same(unflatten(tree, arrays), tree)
    same(unflatten(jax.eval_shape(lambda: state(impl=impl)), arrays), tree)


def test_restored_arrays_may_be_donated():
    tree = state()
    arrays = flatten(tree)
    copy = {name: array.copy() for name, array in arrays.items()}
    restored = unflatten(tree, arrays)
    jax.block_until_ready(jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t),
                                  donate_argnums=0)(restored.params))
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], copy[name])


def test_numpy_and_python_leaves_stay_what_they_are():
    tree = {"n": np.arange(3, dtype=np.int64), "i": 3, "f": 0.1, "b": True}
    restored = unflatten(tree, flatten(tree))
    assert (restored["i"], restored["f"], restored["b"]) == (3, 0.1, True)
    assert type(restored["i"]) is int
    assert type(restored["b"]) is bool
    assert restored["n"].dtype == np.int64


def test_a_subtree_is_restored_by_prefix():
    tree = {"agent": state(), "replay": {"obs": jnp.zeros(9)}}
    same(unflatten(state(), flatten(tree), prefix="agent"), state())


def test_errors_of_trees_that_do_not_fit():
    arrays = flatten(state(4))
    with pytest.raises(UserError) as error:
        unflatten(state(128), arrays)
    assert str(error.value).splitlines() == [
        "checkpoint does not fit: params/actor/dense_0/kernel is (4, 4), the config says (4, 128)",
        "checkpoint does not fit: moments/0 is (4,), the config says (128,)"]
    del arrays["count"]
    arrays["moments/1/0"] = arrays["moments/1/0"].astype(np.int16)
    for name in "abc":
        arrays[f"extra/{name}"] = np.zeros(1)
    with pytest.raises(UserError) as error:
        unflatten(state(4), arrays)
    assert str(error.value).splitlines() == [
        "checkpoint does not fit: moments/1/0 is int16, the config says int32",
        "checkpoint does not fit: count is missing, the config says ()",
        "checkpoint does not fit: extra/a is in the checkpoint, not in the config",
        "checkpoint does not fit: and 2 more"]
