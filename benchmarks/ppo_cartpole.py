"""PPO on CartPole, 500,000 steps a seed: steps/s without compilation, compile seconds, CPU seconds.

    python benchmarks/ppo_cartpole.py [--seeds 1] [--envs 4] [--repeat 3] [--devices N]

The configuration is the field's common one (4 environments x 128 steps, 4 epochs x 4 minibatches, two networks of
64-64 tanh), which is the default of `algo=ppo`. `benchmarks/peers/rejax_ppo.py` runs the same in rejax. A clock lies on
a shared machine: compare ratios of runs that took turns, and CPU seconds.
"""

import argparse
import time

import jax

import jaxrl
from jaxrl import backend
from jaxrl.drivers.build import build
from jaxrl.run import loop


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("seeds", 1), ("envs", 4), ("repeat", 3), ("steps", 500_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--devices", type=int)
    args = parser.parse_args()
    backend.prepare()
    jax.config.update("jax_enable_compilation_cache", False)
    config = jaxrl.compose(["algo=ppo", "env=cartpole", "preset=none", f"num_seeds={args.seeds}",
                            f"algo.num_envs={args.envs}", f"num_devices={args.devices or 'null'}"])
    members = loop.make_members(config, build(config), episodes=128)
    keys = loop.member_keys(0, args.seeds, loop.TRAIN)
    updates = args.steps // members.steps_per_update
    start = time.perf_counter()
    population = members.init(keys, loop.spread(config), updates)
    members.compile(population, keys)
    print(f"compile {time.perf_counter() - start:.1f} s")
    for _ in range(args.repeat):
        population = jax.block_until_ready(members.init(keys, loop.spread(config), updates))
        start, cpu = time.perf_counter(), time.process_time()
        for begin in range(0, updates, 10):       # ten updates between looks, as `jaxrl train` does
            population, metrics = members.advance(population, min(10, updates - begin))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        steps = updates * members.steps_per_update * args.seeds
        print(f"jaxrl {args.seeds} seeds x {args.envs} envs: {steps / wall / 1e3:.0f} k steps/s  ({wall:.2f} s wall, "
              f"{cpu:.2f} s CPU, return {metrics['return_mean'].mean():.0f})")


if __name__ == "__main__":
    main()
