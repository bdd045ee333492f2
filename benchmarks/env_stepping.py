"""Speed of environments alone, with random actions and auto-reset, compared with gymnax's step.

    python benchmarks/env_stepping.py [--envs 1 64 1024 8192] [--only cartpole] [--rounds 5]

The unit is million steps/s. Three contestants take turns in one process: VectorEnv on one device;
VectorEnv with one group per device, on all devices; and gymnax's `step` under `vmap`, which resets
in every step. All use actions that were drawn in advance, and carry the observation through the
loop, as a policy that reads it would. The best round counts. The last columns are ratios to gymnax.
Clocks of shared machines drift: compare only numbers of one line.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

import envs_jax
from envs_jax.sharding import AXIS, mesh_of, sharded_over
from envs_jax.vector import VectorEnv
from jaxrl import backend

PAIRS = {
    "cartpole": "CartPole-v1",
    "pendulum": "Pendulum-v1",
    "acrobot": "Acrobot-v1",
    "mountaincar": "MountainCar-v0",
    "mountaincar-continuous": "MountainCarContinuous-v0",
    "gymnax/Breakout-MinAtar": "Breakout-MinAtar",
}
STEPS = {1: 20_000, 64: 4_000, 1_024: 1_000, 8_192: 200}


def draw(space: Any, steps: int, envs: int) -> jax.Array:
    """Return random actions [steps, envs, ...]."""
    keys = jax.random.split(jax.random.key(0), (steps, envs))
    return jax.jit(jax.vmap(jax.vmap(space.sample)))(keys)


def jaxrl_run(name: str, envs: int, steps: int, devices: tuple) -> Callable[[], Any]:
    """Return a compiled function that runs `steps` steps of VectorEnv on `devices`."""
    env, params = envs_jax.make(name)
    vector = VectorEnv(env, envs, group_size=envs // len(devices))
    actions = draw(env.action_space(params), steps, envs)
    state, _ = jax.jit(lambda key: vector.init(key, params))(jax.random.key(1))

    def run(state, actions, key):
        def step(carry, inputs):
            state, total = carry
            action, step_key = inputs
            state, result = vector.step(step_key, state, action)
            return (state, total + result.reward), None

        keys = jax.random.split(key, steps)
        return jax.lax.scan(step, (state, jnp.zeros(envs)), (actions, keys))[0]

    if len(devices) == 1:
        return partial(jax.jit(run), state, actions, jax.random.key(2))
    mesh = mesh_of(devices)
    whole = NamedSharding(mesh, PartitionSpec())
    by_group = NamedSharding(mesh, PartitionSpec(AXIS))
    by_env = NamedSharding(mesh, PartitionSpec(None, AXIS))
    shardings = jax.tree.map(lambda shared: by_group if shared else whole, vector.shared(state))
    args = (
        jax.device_put(state, shardings),
        jax.device_put(actions, by_env),
        jax.device_put(jax.random.key(2), whole),
    )
    with sharded_over(devices):
        return partial(jax.jit(run).lower(*args).compile(), *args)


def gymnax_run(name: str, envs: int, steps: int) -> Callable[[], Any]:
    """Return the same function for gymnax."""
    import gymnax  # imported late: it starts JAX, and the devices must be chosen before

    env, params = gymnax.make(PAIRS[name])
    space = envs_jax.make(f"gymnax/{PAIRS[name]}")[0].action_space(params)
    actions = draw(space, steps, envs)
    reset_keys = jax.random.split(jax.random.key(1), envs)
    obs, state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(reset_keys, params)
    step_all = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def run(obs, state, actions, key):
        def step(carry, inputs):
            _, state, total = carry
            action, step_key = inputs
            keys = jax.random.split(step_key, envs)
            obs, state, reward, *_ = step_all(keys, state, action, params)
            return (obs, state, total + reward), None

        carry = obs, state, jnp.zeros(envs)
        return jax.lax.scan(step, carry, (actions, jax.random.split(key, steps)))[0]

    return partial(jax.jit(run), obs, state, actions, jax.random.key(2))


def race(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the best seconds of each run. They take turns, after one round to warm up."""
    best = [float("inf")] * len(runs)
    for turn in range(rounds + 1):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn > 0:
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def line(name: str, envs: int, rates: list[float]) -> str:
    """Return a line of the table. rates: one device, all devices if measured, gymnax."""
    one = rates[0]
    gymnax = rates[-1]
    shown = "   -  "
    ratio = ""
    if len(rates) == 3:
        shown = f"{rates[1]:6.2f}"
        ratio = f"{rates[1] / gymnax:4.1f}x"
    return f"{name:26} {envs:5}  {one:6.2f} {shown} {gymnax:6.2f}   {one / gymnax:4.1f}x {ratio}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--envs", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--only", nargs="+", default=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    backend.prepare()
    devices = tuple(jax.local_devices())
    print(f"million steps/s on {devices[0].device_kind}: one device, {len(devices)} devices, "
          "gymnax; ratios to gymnax")
    for name in args.only:
        for envs in args.envs:
            steps = STEPS.get(envs, max(200, 2_000_000 // envs))
            runs = [jaxrl_run(name, envs, steps, devices[:1]), gymnax_run(name, envs, steps)]
            if len(devices) > 1 and envs >= 2 * len(devices):
                runs.insert(1, jaxrl_run(name, envs, steps, devices))
            rates = [steps * envs / seconds / 1e6 for seconds in race(runs, args.rounds)]
            print(line(name, envs, rates), flush=True)


if __name__ == "__main__":
    main()
