"""One learner on eight devices, in a process of its own, learns what it learns on one."""

import json
import os
import subprocess
import sys

import pytest

CHILD = '''
import json, re, sys
import jax, numpy as np
import jaxrl
from jaxrl.drivers.build import build
from jaxrl.run import learners

jax.config.update("jax_numpy_rank_promotion", "raise")
is_key = lambda x: jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
host = lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x)
seen = {}
for devices in (1, 8):
    words = ["preset=none", "algo.network.hidden=[16]", f"num_devices={devices}", *sys.argv[2:]]
    config = jaxrl.compose([f"algo={sys.argv[1]}", *words])
    members = learners.make_members(config, build(config), episodes=4)
    keys = learners.member_keys(0, 1, learners.TRAIN)
    population = members.init(keys, learners.spread(config), 10)
    population, metrics = members.advance(population, 10)
    returns = members.evaluate(population, keys)
    again, _ = members.advance(members.from_host(members.to_host(population)), 1)
    further, _ = members.advance(population, 1)
    same = jax.tree.map(lambda a, b: bool(np.array_equal(host(a), host(b))), again, further)
    seen[devices] = members, members.to_host(further), metrics, returns, all(jax.tree.leaves(same))
(one, alone, *a), (eight, shared, *b) = seen.values()

def gap(x, y):
    x, y = (np.asarray(host(z), np.float64) for z in (x, y))
    return float(np.max(np.abs(x - y) / np.maximum(1.0, np.abs(x)), initial=0.0))

widest = lambda x, y: max(map(gap, jax.tree.leaves(x), jax.tree.leaves(y)))
program = eight._programs["advance", eight.places[0]].result().as_text()
kinds = "all-reduce|all-gather|all-to-all|collective-permute"
loops = re.findall(rf"({kinds})\\(.*?op_name=\\"(.*?)\\"", program)
print(json.dumps({
    "shards": [one.shards, eight.shards],
    "agent": widest(alone.agent, shared.agent), "metrics": widest(a[0], b[0]),
    "env": widest(alone.env.env, shared.env.env), "returns": widest(a[1], b[1]),
    "same": a[2] and b[2],
    "first": bool(np.all(alone.env.pool.used == shared.env.pool.used)),
    "of_rollout": [name for kind, name in loops
                   if "while/body/while/body" in name and "jvp" not in name],
    "of_gradient": sum("transpose" in name for _, name in loops),
    "placed": len(population[0].env.input.obs.sharding.device_set) if devices == 8 else 0}))
'''


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["ppo", "env=cartpole", "algo.num_envs=1024", "algo.rollout_length=4",
     "algo.normalize_observation=true",
     "algo.normalize_reward=true"],
    ["a2c", "env=repeat-previous", "algo.num_envs=1024", "algo.network.recurrent=gru"]],
    ids=["ppo", "a2c-recurrent"])
def test_eight_devices_learn_what_one_learns(words):
    env = {**os.environ, "JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CHILD, *words], env=env, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    got = json.loads(done.stdout.splitlines()[-1])
    assert got["shards"] == [1, 8] and got["placed"] == 8
    assert got["agent"] < 1e-5 and got["metrics"] < 1e-4 and got["first"]
    assert got["env"] < 1e-3                      # the dynamics amplify the last bits of a policy
    assert got["same"]                # stored and read back: the same bits, on 8 devices too
    # devices meet to sum gradients, not to step
    assert got["of_rollout"] == [] and got["of_gradient"] >= 1
