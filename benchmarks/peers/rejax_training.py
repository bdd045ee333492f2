"""The cases of ../training.py in rejax.

    python benchmarks/peers/rejax_training.py ppo-cartpole [--seeds 1] [--envs 4] [--steps N]
        [--repeat 3]

Use a separate environment: pip install rejax "gymnax==0.0.9" six
"""

import argparse
import time

import jax
from rejax import get_algo

# case -> (algorithm, steps per seed, environments, settings)
CASES = {
    "ppo-cartpole": ("ppo", 500_000, 4, {
        "env": "CartPole-v1", "num_steps": 128, "num_epochs": 4, "num_minibatches": 4,
        "learning_rate": 2.5e-4, "max_grad_norm": 0.5, "gamma": 0.99, "gae_lambda": 0.95,
        "clip_eps": 0.2, "ent_coef": 0.01, "vf_coef": 0.5,
        "agent_kwargs": {"activation": "tanh"}}),
    "dqn-cartpole": ("dqn", 200_000, 10, {
        "env": "CartPole-v1", "num_epochs": 1, "batch_size": 128, "buffer_size": 10_000,
        "fill_buffer": 1000, "learning_rate": 1e-3, "gamma": 0.99, "target_update_freq": 500,
        "max_grad_norm": 10.0, "eps_start": 1.0, "eps_end": 0.05, "exploration_fraction": 0.5,
        "agent_kwargs": {"activation": "relu"}}),
    "sac-pendulum": ("sac", 20_000, 1, {
        "env": "Pendulum-v1", "num_epochs": 1, "batch_size": 256, "buffer_size": 20_000,
        "fill_buffer": 1000, "learning_rate": 1e-3, "gamma": 0.99, "polyak": 0.995,
        "agent_kwargs": {"activation": "relu"}}),
}


def main() -> None:
    """Train the case `repeat` times and print the speed of each run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--envs", type=int)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    name, steps, envs, settings = CASES[args.case]
    envs = args.envs or envs
    unit = envs * settings.get("num_steps", 1)
    steps = (args.steps or steps) // unit * unit
    algo = get_algo(name).create(
        num_envs=envs, total_timesteps=steps, eval_freq=steps, skip_initial_evaluation=True,
        **settings)
    algo = algo.replace(eval_callback=lambda algo, state, key: ())
    key = jax.random.key(0)
    if args.seeds > 1:
        key = jax.random.split(key, args.seeds)

    def run(algo, key):
        train = algo.train if args.seeds == 1 else jax.vmap(algo.train)
        return train(key)

    start = time.perf_counter()
    program = jax.jit(run).lower(algo, key).compile()
    print(f"compile {time.perf_counter() - start:.1f} s")
    for _ in range(args.repeat):
        start = time.perf_counter()
        cpu_start = time.process_time()
        jax.block_until_ready(program(algo, key))
        wall = time.perf_counter() - start
        cpu = time.process_time() - cpu_start
        rate = steps * args.seeds / wall / 1e3
        print(f"rejax {args.case}, {args.seeds} seeds: {rate:.1f} k steps/s  "
              f"({wall:.2f} s wall, {cpu:.2f} s CPU)")


if __name__ == "__main__":
    main()
