"""A torso with residual connections."""

from typing import Any

import flax.linen as nn

from jaxrl.blocks.networks.modules import ACTIVATIONS, dense


class Residual(nn.Module):
    """Features [N, F] -> [N, hidden[0]], then a residual block per further entry of `hidden`."""

    config: Any          # the NetworkConfig: algo.network.*
    dtype: Any           # of the hidden layers

    @nn.compact
    def __call__(self, x):
        act = ACTIVATIONS[self.config.activation]
        width, *blocks = self.config.hidden
        x = act(dense(width, 2**0.5, self.dtype, "first")(x))
        for i, size in enumerate(blocks):
            y = act(dense(size, 2**0.5, self.dtype, f"up_{i}")(x))
            x = x + dense(width, 0.1, self.dtype, f"down_{i}")(y)
        return x
