"""Replay: what drawing a batch and giving its priorities costs as the capacity grows, and what an update of DQN keeps
in memory.

    python benchmarks/replay.py [--batch 128] [--repeat 2000]

Rows are CartPole's. The loop that is timed is compiled, as in training: draw, then give priorities, so many times.
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

ENVS, T = 10, 10


def cost(draw: Draw, capacity: int, batch: int, repeat: int) -> float:
    """Microseconds per batch, of a full replay."""
    runner = build(jaxrl.compose(["algo=dqn", "env=cartpole", f"algo.num_envs={ENVS}"])).runner
    hyper = hypers(jaxrl.compose(["algo=dqn", "env=cartpole"]).agent)
    row = runner.row(jax.eval_shape(lambda key: runner.init(key, hyper, 1), jax.random.key(0)))
    replay = replays.transitions(n=1, draw=draw, rows_per_insert=T)
    state = replay.init(row, capacity)
    block = jax.tree.map(lambda x: jnp.zeros((T, *x.shape), x.dtype), row)
    fill = jax.jit(lambda state: jax.lax.fori_loop(0, capacity // ENVS // T + 1, lambda i, s: replay.insert(s, block),
                                                   state), donate_argnums=0)

    def run(state, key):
        def once(i, carry):
            state, total = carry
            items = replay.sample(state, jax.random.fold_in(key, i), batch, gamma=0.99, beta=0.4)
            priority = jax.random.uniform(jax.random.fold_in(key, -i), (batch,)) + items.reward
            return replay.update(state, items.index, priority, alpha=0.6), total + (items.weight * items.reward).sum()

        return jax.lax.fori_loop(0, repeat, once, (state, 0.0))

    state = fill(state)
    run = jax.jit(run, donate_argnums=0).lower(state, jax.random.key(0)).compile()
    best = float("inf")
    for i in range(3):
        key = jax.random.key(i)
        start = time.perf_counter()
        state, _ = jax.block_until_ready(run(state, key))
        best = min(best, time.perf_counter() - start)
    return 1e6 * best / repeat


def memory(prioritised: bool) -> float:
    """Peak bytes of a donated chunk of updates over those of the replay, of 400,000 steps."""
    config = jaxrl.compose(["algo=dqn", "env=cartpole", f"algo.prioritized={str(prioritised).lower()}",
                            "algo.replay_capacity=400000"])
    runner, hyper = build(config).runner, hypers(config.agent)
    state = jax.eval_shape(lambda key: runner.init(key, hyper, 100), jax.random.key(0))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.replay))
    used = jax.jit(runner.advance, donate_argnums=0).lower(state, jnp.int32(3)).compile().memory_analysis()
    return (used.argument_size_in_bytes + used.temp_size_in_bytes) / size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=2000)
    args = parser.parse_args()
    print(f"microseconds for a batch of {args.batch}:  capacity   uniform   prioritised")
    for capacity in (10_000, 100_000, 1_000_000):
        times = [cost(draw(), capacity, args.batch, args.repeat) for draw in (replays.uniform, replays.prioritized)]
        print(f"{capacity:>40,} {times[0]:>9.1f} {times[1]:>13.1f}")
    for name, prioritised in (("uniform", False), ("prioritised", True)):
        print(f"peak memory of updates over the replay's, {name}: {memory(prioritised):.3f}")


if __name__ == "__main__":
    main()
