"""Environments alone, with random actions and auto-reset: million steps/s beside gymnax's own step, in one process.

    python benchmarks/env_stepping.py [--envs 1 64 1024 8192] [--only cartpole] [--rounds 5]

Three contestants take turns: VectorEnv on one device; VectorEnv in as many groups as there are devices, on all of them;
and gymnax's `step` under `vmap`, with its auto-reset in every step. All get actions that were drawn before, and carry
the observation through the loop, as a policy that reads it makes them. The best of the rounds counts; the columns after
it are ratios to gymnax. A clock lies on a shared machine: compare what stands in one line.
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

PAIRS = {"cartpole": "CartPole-v1", "pendulum": "Pendulum-v1", "acrobot": "Acrobot-v1", "mountaincar": "MountainCar-v0",
         "mountaincar-continuous": "MountainCarContinuous-v0", "gymnax/Breakout-MinAtar": "Breakout-MinAtar"}
STEPS = {1: 20_000, 64: 4_000, 1_024: 1_000, 8_192: 200}


def draw(space: Any, steps: int, envs: int) -> jax.Array:
    """Random actions [steps, envs, ...]."""
    keys = jax.random.split(jax.random.key(0), (steps, envs))
    return jax.jit(jax.vmap(jax.vmap(space.sample)))(keys)


def ours(name: str, envs: int, steps: int, devices: tuple) -> Callable[[], Any]:
    """A run of `steps` steps on `devices`, compiled."""
    env, params = envs_jax.make(name)
    vector = VectorEnv(env, envs, group_size=envs // len(devices))
    actions = draw(env.action_space(params), steps, envs)
    state, _ = jax.jit(lambda key: vector.init(key, params))(jax.random.key(1))

    def run(state, actions, key):
        def step(carry, now):
            state, total = carry
            state, after = vector.step(now[1], state, now[0])
            return (state, total + after.reward), None
        return jax.lax.scan(step, (state, jnp.zeros(envs)), (actions, jax.random.split(key, steps)))[0]

    if len(devices) == 1:
        return partial(jax.jit(run), state, actions, jax.random.key(2))
    place = lambda *spec: NamedSharding(mesh_of(devices), PartitionSpec(*spec))
    state = jax.device_put(state, jax.tree.map(lambda shared: place(AXIS) if shared else place(), vector.shared(state)))
    args = state, jax.device_put(actions, place(None, AXIS)), jax.device_put(jax.random.key(2), place())
    with sharded_over(devices):
        return partial(jax.jit(run).lower(*args).compile(), *args)


def theirs(name: str, envs: int, steps: int) -> Callable[[], Any]:
    """The same with gymnax."""
    import gymnax  # here, because it starts JAX, whose devices are chosen before

    env, params = gymnax.make(PAIRS[name])
    actions = draw(envs_jax.make(f"gymnax/{PAIRS[name]}")[0].action_space(params), steps, envs)
    obs, state = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(jax.random.split(jax.random.key(1), envs), params)

    def run(obs, state, actions, key):
        def step(carry, now):
            _, state, total = carry
            obs, state, reward, *_ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                jax.random.split(now[1], envs), state, now[0], params)
            return (obs, state, total + reward), None
        carry = obs, state, jnp.zeros(envs)
        return jax.lax.scan(step, carry, (actions, jax.random.split(key, steps)))[0]

    run = jax.jit(run)
    return partial(run, obs, state, actions, jax.random.key(2))


def race(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The best seconds of each, after a run to warm up; they take turns."""
    best = [float("inf")] * len(runs)
    for turn in range(rounds + 1):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                best[i] = min(best[i], time.perf_counter() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--envs", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--only", nargs="+", default=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    backend.prepare()
    devices = tuple(jax.local_devices())
    print(f"million steps/s on {devices[0].device_kind}: one device, {len(devices)} devices, gymnax; ratios to gymnax")
    for name in args.only:
        for envs in args.envs:
            steps = STEPS.get(envs, max(200, 2_000_000 // envs))
            runs = [ours(name, envs, steps, devices[:1]), theirs(name, envs, steps)]
            if len(devices) > 1 and envs >= 2 * len(devices):
                runs.insert(1, ours(name, envs, steps, devices))
            rates = [steps * envs / seconds / 1e6 for seconds in race(runs, args.rounds)]
            one, peer, all_of = rates[0], rates[-1], rates[1] if len(runs) == 3 else None
            shown = "   -  " if all_of is None else f"{all_of:6.2f}"
            print(f"{name:26} {envs:5}  {one:6.2f} {shown} {peer:6.2f}   {one / peer:4.1f}x "
                  + ("" if all_of is None else f"{all_of / peer:4.1f}x"), flush=True)


if __name__ == "__main__":
    main()
