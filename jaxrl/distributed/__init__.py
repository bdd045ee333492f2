"""Workers made from a plain Python class, and items dealt out to them: in this process, or as Ray actors on many hosts.

    with open_pool(Evaluator, config, workers=2, restore=lambda worker: [("load", theta)]) as pool:
        pool.broadcast("load", theta)
        for block, fitness in pool.map_unordered("evaluate", blocks, timeout=60): ...

`workers=0` is one object here, without Ray; an algorithm is written once, and gives the same results on both as long as
a result depends on its item and on what was broadcast, not on the worker. Whatever crosses arrives as NumPy arrays that
are read-only; typed PRNG keys as their key data (jax.random.wrap_key_data).

Whoever calls owns the truth: a worker that dies or hangs is replaced by a new object, which `restore` brings up to
date, so that time is lost, not learning.

`cluster` starts or joins Ray, `pool` says what workers have in common, `actors` are those over Ray; none knows anything
of learning. Ray is imported here alone, and only once it is used.
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
              cluster: Cluster | None = None, share: Share | None = None, restore: Restore | None = None,
              start_timeout: float = START, **kwargs: Any) -> Iterator[Pool]:
    """A pool of make(*args, **kwargs): for `workers=0` in this process, else over Ray, started or joined for it.

    `restore` and `start_timeout` as of RayPool, `address` and `share` as of `connect`; cluster: what that gave before.
    """
    if not workers:
        if address is not None:
            raise UserError(f"address={address} needs workers.", "Say how many: workers=8")
        yield InlinePool(make, args, kwargs)
        return
    from jaxrl.distributed.actors import RayPool

    with contextlib.nullcontext(cluster) if cluster else connect(workers, address, share=share) as there, \
            RayPool(there, make, args, kwargs, workers=workers, share=share, restore=restore,
                    start_timeout=start_timeout) as pool:
        yield pool
