"""For tests of what networks compute."""

import jax


def compiled(make):
    """`make` of a network whose functions are compiled whole: else every operation is by itself, shape by shape."""
    def made(*args, **kwargs):
        network = make(*args, **kwargs)
        pure = [name for name in network._fields if name not in ("reads", "carry")]
        return network._replace(**{name: jax.jit(getattr(network, name)) for name in pure})

    return made
