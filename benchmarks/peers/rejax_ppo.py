"""The run of ../ppo_cartpole.py in rejax, in an environment of its own: pip install rejax "gymnax==0.0.9" six

    python benchmarks/peers/rejax_ppo.py [--seeds 1] [--envs 4] [--repeat 3]
"""

import argparse
import time

import jax
from rejax import get_algo


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("seeds", 1), ("envs", 4), ("repeat", 3), ("steps", 500_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    steps = args.steps // (args.envs * 128) * args.envs * 128
    algo = get_algo("ppo").create(
        env="CartPole-v1", num_envs=args.envs, num_steps=128, num_epochs=4, num_minibatches=4, learning_rate=2.5e-4,
        max_grad_norm=0.5, total_timesteps=steps, eval_freq=steps, gamma=0.99, gae_lambda=0.95, clip_eps=0.2,
        ent_coef=0.01, vf_coef=0.5, agent_kwargs={"activation": "tanh"}, skip_initial_evaluation=True)
    algo = algo.replace(eval_callback=lambda algo, state, key: ())
    key = jax.random.key(0)
    run = (lambda a, k: a.train(k)) if args.seeds == 1 else (lambda a, k: jax.vmap(a.train)(k))
    key = key if args.seeds == 1 else jax.random.split(key, args.seeds)
    start = time.perf_counter()
    program = jax.jit(run).lower(algo, key).compile()
    print(f"compile {time.perf_counter() - start:.1f} s")
    for _ in range(args.repeat):
        start, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(program(algo, key))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"rejax {args.seeds} seeds x {args.envs} envs: {steps * args.seeds / wall / 1e3:.0f} k steps/s  "
              f"({wall:.2f} s wall, {cpu:.2f} s CPU)")


if __name__ == "__main__":
    main()
