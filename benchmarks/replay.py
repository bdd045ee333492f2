"""Time to sample from a replay as its capacity grows, and peak memory of an update of DQN.

    python benchmarks/replay.py [--batch 128] [--repeat 2000]

The rows are those of CartPole. The timed loop is compiled, as in training: it samples a batch and
updates its priorities, `repeat` times.
"""

import argparse
import time

import jax
import jax.numpy as jnp

import jaxrl
from jaxrl.blocks import replay as replays
from jaxrl.blocks.replay.draws import Draw
from jaxrl.declare import hypers
from jaxrl.drivers.build import build

ENVS = 10
T = 10


def cost(draw: Draw, capacity: int, batch: int, repeat: int) -> float:
    """Return microseconds per batch of a full replay."""
    runner = build(jaxrl.compose(["algo=dqn", "env=cartpole", f"algo.num_envs={ENVS}"])).runner
    hyper = hypers(jaxrl.compose(["algo=dqn", "env=cartpole"]).agent)
    row = runner.row(jax.eval_shape(lambda key: runner.init(key, hyper, 1), jax.random.key(0)))
    replay = replays.transitions(n=1, draw=draw, rows_per_insert=T)
    state = replay.init(row, capacity)
    block = jax.tree.map(lambda x: jnp.zeros((T, *x.shape), x.dtype), row)

    def fill(state):
        inserts = capacity // ENVS // T + 1
        return jax.lax.fori_loop(0, inserts, lambda i, state: replay.insert(state, block), state)

    def run(state, key):
        def once(i, carry):
            state, total = carry
            items = replay.sample(state, jax.random.fold_in(key, i), batch, gamma=0.99, beta=0.4)
            priority = jax.random.uniform(jax.random.fold_in(key, -i), (batch,)) + items.reward
            state = replay.update(state, items.index, priority, alpha=0.6)
            return state, total + (items.weight * items.reward).sum()

        return jax.lax.fori_loop(0, repeat, once, (state, 0.0))

    state = jax.jit(fill, donate_argnums=0)(state)
    run = jax.jit(run, donate_argnums=0).lower(state, jax.random.key(0)).compile()
    best = float("inf")
    for i in range(3):
        key = jax.random.key(i)
        start = time.perf_counter()
        state, _ = jax.block_until_ready(run(state, key))
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / repeat


def peak_ratio(prioritized: bool) -> float:
    """Return the peak bytes of a chunk of updates over the bytes of the replay, of 400,000 steps.

    The state is donated.
    """
    config = jaxrl.compose([
        "algo=dqn", "env=cartpole", f"algo.prioritized={str(prioritized).lower()}",
        "algo.replay_capacity=400000"])
    runner = build(config).runner
    hyper = hypers(config.agent)
    state = jax.eval_shape(lambda key: runner.init(key, hyper, 100), jax.random.key(0))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.replay))
    advance = jax.jit(runner.advance, donate_argnums=0)
    used = advance.lower(state, jnp.int32(3)).compile().memory_analysis()
    return (used.argument_size_in_bytes + used.temp_size_in_bytes) / size


def main() -> None:
    """Print times for three capacities, then the memory ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=2000)
    args = parser.parse_args()
    print(f"microseconds for a batch of {args.batch}:  capacity   uniform   prioritized")
    for capacity in (10_000, 100_000, 1_000_000):
        uniform = cost(replays.uniform(), capacity, args.batch, args.repeat)
        prioritized = cost(replays.prioritized(), capacity, args.batch, args.repeat)
        print(f"{capacity:>40,} {uniform:>9.1f} {prioritized:>13.1f}")
    for name, prioritized in (("uniform", False), ("prioritized", True)):
        print(f"peak memory of updates over the replay's, {name}: {peak_ratio(prioritized):.3f}")


if __name__ == "__main__":
    main()
