"""Training: steps/s without compilation, compile seconds, CPU seconds, at settings that peers can be given, too.

    python benchmarks/training.py ppo-cartpole [--seeds 1] [--envs 4] [--steps N] [--repeat 3] [--devices N]

`benchmarks/peers/rejax_training.py` runs the same in rejax. A clock lies on a shared machine: compare ratios of runs
that took turns, and CPU seconds.
"""

import argparse
import time

import jax
import numpy as np

import jaxrl
from jaxrl import backend
from jaxrl.drivers.build import build
from jaxrl.run import learners, plan

# case -> (steps a seed, environments, words)
CASES = {
    # the field's common one, and our default: 4 environments x 128 steps, 4 epochs x 4 minibatches, 64-64 tanh
    "ppo-cartpole": (500_000, 4, ["algo=ppo", "env=cartpole"]),
    # 10 environments, a double-Q step on a batch of 128 after each step of all, 64-64
    "dqn-cartpole": (200_000, 10, ["algo=dqn", "env=cartpole", "algo.gradient_steps=1", "algo.batch_size=128",
                                   "algo.replay_capacity=10000", "algo.target_every=50"]),
    # one environment, one step on a batch of 256 after each, 64-64, twin critics, a learned temperature
    "sac-pendulum": (20_000, 1, ["algo=sac", "env=pendulum", "algo.gradient_steps=1", "algo.batch_size=256",
                                 "algo.replay_capacity=20000"]),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    for name, default in (("seeds", 1), ("envs", None), ("repeat", 3), ("steps", None), ("devices", None)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    steps, envs, words = CASES[args.case]
    backend.prepare()
    jax.config.update("jax_enable_compilation_cache", False)
    config = jaxrl.compose([*words, "preset=none", f"num_seeds={args.seeds}", f"total_steps={args.steps or steps}",
                            f"algo.num_envs={args.envs or envs}", f"num_devices={args.devices or 'null'}"])
    members = learners.make_members(config, build(config), episodes=128)
    when = plan.plan(plan.settle(config, members.steps_per_update), members.steps_per_update)
    keys = learners.member_keys(0, args.seeds, learners.TRAIN)
    start = time.perf_counter()
    population = members.init(keys, learners.spread(config), when.total)
    members.compile(population, keys)
    members.evaluate(population, keys)                     # its compilation, in a thread, is not to be timed below
    print(f"compile {time.perf_counter() - start:.1f} s")
    for _ in range(args.repeat):
        population = jax.block_until_ready(members.init(keys, learners.spread(config), when.total))
        start, cpu = time.perf_counter(), time.process_time()
        for begin in range(0, when.total, when.log):       # looks as often as `jaxrl train` does
            population, metrics = members.advance(population, min(when.log, when.total - begin))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        done = when.total * members.steps_per_update * args.seeds
        print(f"jaxrl {args.case}, {args.seeds} seeds on {len(members.devices)} devices: {done / wall / 1e3:.1f} k "
              f"steps/s  ({wall:.2f} s wall, {cpu:.2f} s CPU, return {np.nanmean(metrics['return_mean']):.0f})")


if __name__ == "__main__":
    main()
