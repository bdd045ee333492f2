"""Speed of training: steps/s without compilation, compile seconds and CPU seconds.

    python benchmarks/training.py ppo-cartpole [--seeds 1] [--envs 4] [--steps N] [--repeat 3]
        [--devices N]

The settings are available in other libraries, too: `benchmarks/peers/rejax_training.py` runs the
same cases in rejax. Clocks of shared machines drift: compare ratios of alternating runs, and CPU
seconds.
"""

import argparse
import time

import jax
import numpy as np

import jaxrl
from jaxrl import backend
from jaxrl.drivers.build import build
from jaxrl.run import learners, plan

# case -> (steps per seed, environments, words)
CASES = {
    # the field's common settings, also our defaults: 4 environments x 128 steps, 4 epochs x 4
    # minibatches, 64-64 tanh
    "ppo-cartpole": (500_000, 4, ["algo=ppo", "env=cartpole"]),
    # 10 environments, one double-Q step on a batch of 128 after each step of all of them, 64-64
    "dqn-cartpole": (200_000, 10, [
        "algo=dqn", "env=cartpole", "algo.gradient_steps=1", "algo.batch_size=128",
        "algo.replay_capacity=10000", "algo.target_every=50"]),
    # one environment, one gradient step on a batch of 256 after each step, 64-64, two critics, a
    # learned temperature
    "sac-pendulum": (20_000, 1, [
        "algo=sac", "env=pendulum", "algo.gradient_steps=1", "algo.batch_size=256",
        "algo.replay_capacity=20000"]),
}


def main() -> None:
    """Train the case `repeat` times and print the speed of each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--envs", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--devices", type=int)
    args = parser.parse_args()
    steps, envs, words = CASES[args.case]
    backend.prepare()
    jax.config.update("jax_enable_compilation_cache", False)
    config = jaxrl.compose([
        *words, "preset=none", f"num_seeds={args.seeds}", f"total_steps={args.steps or steps}",
        f"algo.num_envs={args.envs or envs}", f"num_devices={args.devices or 'null'}"])
    members = learners.make_members(config, build(config), episodes=128)
    when = plan.plan(plan.settle(config, members.steps_per_update), members.steps_per_update)
    keys = learners.member_keys(0, args.seeds, learners.TRAIN)
    start = time.perf_counter()
    population = members.init(keys, learners.spread(config), when.total)
    members.compile(population, keys)
    members.evaluate(population, keys)                     # wait for its compilation in a thread
    print(f"compile {time.perf_counter() - start:.1f} s")
    for _ in range(args.repeat):
        population = jax.block_until_ready(members.init(keys, learners.spread(config), when.total))
        start = time.perf_counter()
        cpu_start = time.process_time()
        for begin in range(0, when.total, when.log):   # chunks as long as those of `jaxrl train`
            population, metrics = members.advance(population, min(when.log, when.total - begin))
        wall = time.perf_counter() - start
        cpu = time.process_time() - cpu_start
        done = when.total * members.steps_per_update * args.seeds
        print(f"jaxrl {args.case}, {args.seeds} seeds on {len(members.devices)} devices: "
              f"{done / wall / 1e3:.1f} k steps/s  ({wall:.2f} s wall, {cpu:.2f} s CPU, "
              f"return {np.nanmean(metrics['return_mean']):.0f})")


if __name__ == "__main__":
    main()
