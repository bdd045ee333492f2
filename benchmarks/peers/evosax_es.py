"""evosax's OpenAI-ES on gymnax's CartPole, at the settings of ../evolution.py, in an environment of its own:
pip install evosax "gymnax==0.0.9" six

    python benchmarks/peers/evosax_es.py [--population 256] [--generations 100]

As its examples have it: every member plays on to step 500, whether its episode has ended or not.
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--population", type=int, default=256)
    parser.add_argument("--generations", type=int, default=100)
    args = parser.parse_args()
    policy = MLP(layer_sizes=(64, 64, 2), output_fn=lambda x, key: jnp.argmax(x, axis=-1))
    problem = GymnaxProblem("CartPole-v1", policy, episode_length=500, use_normalize_obs=False)
    key = jax.random.key(0)
    theta = policy.init(key, jnp.zeros(4), key)
    adam = optax.chain(optax.add_decayed_weights(0.005), optax.adam(0.03))
    strategy = Open_ES(args.population, theta, optimizer=adam, std_schedule=optax.constant_schedule(0.1))
    params = strategy.default_params
    state, world = strategy.init(key, theta, params), problem.init(key)

    def generation(carry, key):
        state, world = carry
        ask, play, tell = jax.random.split(key, 3)
        population, state = strategy.ask(ask, state, params)
        fitness, world, _ = problem.eval(play, population, world)
        state, _ = strategy.tell(tell, population, -fitness, state, params)
        return (state, world), fitness.mean()

    run = jax.jit(lambda carry, keys: jax.lax.scan(generation, carry, keys))
    keys = jax.random.split(key, (args.generations // CHUNK, CHUNK))
    start = time.perf_counter()
    run = run.lower((state, world), keys[0]).compile()
    print(f"compile {time.perf_counter() - start:.1f} s")
    carry = (state, world)
    for number, part in enumerate(keys):
        start = time.perf_counter()
        carry, fitness = jax.block_until_ready(run(carry, part))
        wall = time.perf_counter() - start
        print(f"evosax, generations {number * CHUNK + 1} to {(number + 1) * CHUNK}: {CHUNK / wall:.1f} a second, mean "
              f"return {fitness.mean():.0f}", flush=True)


if __name__ == "__main__":
    main()
