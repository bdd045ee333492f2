"""Workers made from a plain Python class, in this process or as Ray actors on many hosts.

    with open_pool(Evaluator, config, workers=2, restore=lambda w: [("load", theta)]) as pool:
        pool.broadcast("load", theta)
        for block, fitness in pool.map_unordered("evaluate", blocks, timeout=60): ...

`workers=0` is one object in this process, without Ray. An algorithm is written once, and gives the
same results on both if a result depends on its item and on what was broadcast, not on the worker.
Arrays arrive as read-only NumPy arrays; typed PRNG keys arrive as their key data
(jax.random.wrap_key_data).

The caller owns the state. A worker that dies or hangs is replaced by a new object, which `restore`
brings up to date: time is lost, but no learning.

`cluster` starts or joins Ray, `pool` defines what all workers have in common, and `actors` are the
workers over Ray. None of them knows anything about learning. Ray is imported here alone, and only
when it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxrl.distributed.cluster import Cluster, Share, connect
from jaxrl.distributed.pool import START, InlinePool, Pool, Restore
from jaxrl.errors import UserError


@contextlib.contextmanager
def open_pool(make: Callable[..., Any], *args: Any, workers: int = 0, address: str | None = None,
              cluster: Cluster | None = None, share: Share | None = None,
              restore: Restore | None = None, start_timeout: float = START,
              **kwargs: Any) -> Iterator[Pool]:
    """Open a pool of objects make(*args, **kwargs); `workers=0` is one in this process.

    Other pools use `cluster`, a connection that `connect` returned, or else start or join Ray.
    `address` and `share` are explained at `connect`, `restore` and `start_timeout` at RayPool.
    """
    if not workers:
        if address is not None:
            raise UserError(f"address={address} needs workers.", "Give their number: workers=8")
        yield InlinePool(make, args, kwargs)
        return
    from jaxrl.distributed.actors import RayPool

    with contextlib.ExitStack() as stack:
        if cluster is None:
            cluster = stack.enter_context(connect(workers, address, share=share))
        pool = RayPool(cluster, make, args, kwargs, workers=workers, share=share, restore=restore,
                       start_timeout=start_timeout)
        yield stack.enter_context(pool)
