"""OpenAI-ES of evosax on gymnax's CartPole, with the settings of ../evolution.py.

    python benchmarks/peers/evosax_es.py [--population 256] [--generations 100]

Use a separate environment: pip install evosax "gymnax==0.0.9" six

As in evosax's examples, every member plays until step 500, even if its episode has ended.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms import Open_ES
from evosax.problems import GymnaxProblem
from evosax.problems.networks import MLP

CHUNK = 10


def main() -> None:
    """Print generations per second, ten generations at a time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--population", type=int, default=256)
    parser.add_argument("--generations", type=int, default=100)
    args = parser.parse_args()
    policy = MLP(layer_sizes=(64, 64, 2), output_fn=lambda x, key: jnp.argmax(x, axis=-1))
    problem = GymnaxProblem("CartPole-v1", policy, episode_length=500, use_normalize_obs=False)
    key = jax.random.key(0)
    theta = policy.init(key, jnp.zeros(4), key)
    adam = optax.chain(optax.add_decayed_weights(0.005), optax.adam(0.03))
    strategy = Open_ES(
        args.population, theta, optimizer=adam, std_schedule=optax.constant_schedule(0.1))
    params = strategy.default_params
    strategy_state = strategy.init(key, theta, params)
    problem_state = problem.init(key)

    def generation(carry, key):
        strategy_state, problem_state = carry
        ask_key, play_key, tell_key = jax.random.split(key, 3)
        population, strategy_state = strategy.ask(ask_key, strategy_state, params)
        fitness, problem_state, _ = problem.eval(play_key, population, problem_state)
        strategy_state, _ = strategy.tell(tell_key, population, -fitness, strategy_state, params)
        return (strategy_state, problem_state), fitness.mean()

    run = jax.jit(lambda carry, keys: jax.lax.scan(generation, carry, keys))
    keys = jax.random.split(key, (args.generations // CHUNK, CHUNK))
    carry = (strategy_state, problem_state)
    start = time.perf_counter()
    run = run.lower(carry, keys[0]).compile()
    print(f"compile {time.perf_counter() - start:.1f} s")
    for number, chunk_keys in enumerate(keys):
        start = time.perf_counter()
        carry, fitness = jax.block_until_ready(run(carry, chunk_keys))
        wall = time.perf_counter() - start
        print(f"evosax, generations {number * CHUNK + 1} to {(number + 1) * CHUNK}: "
              f"{CHUNK / wall:.1f} per second, mean return {fitness.mean():.0f}", flush=True)


if __name__ == "__main__":
    main()
