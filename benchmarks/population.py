"""What population-based training sends as the population grows: bytes of a round, as pickled between its processes.

    python benchmarks/population.py

A round is a chunk of training, an evaluation and a decision by which a quarter of the members go on from others, most
of whom are in another block. What passes through the coordinator is counted apart from agents, which go from worker to
worker by reference. Blocks of 4 members of PPO on CartPole, 64-64.
"""

import jax
import numpy as np
from counting import Counting

import jaxrl
from jaxrl import backend
from jaxrl import config as configs
from jaxrl.drivers.build import build
from jaxrl.population.remote import BlockHost, RemoteMembers
from jaxrl.run import learners

SIZE = 4


def main() -> None:
    backend.prepare()
    for population in (8, 32, 128):
        words = ["algo=ppo", "env=cartpole", "preset=none", "eval_episodes=8", f"num_seeds={population}"]
        config = jaxrl.compose(words)
        learner, keys = build(config), learners.member_keys(0, population, learners.TRAIN)
        pool = Counting(BlockHost, (configs.to_plain(config), SIZE, config.settings.eval_episodes))
        members = RemoteMembers(learner.runner, population, pool, size=SIZE)
        hyper = jax.tree.map(np.asarray, learners.spread(config))
        blocks = members.init(keys, hyper, 10)
        pool.through = pool.between = 0
        blocks, _ = members.advance(blocks, 1)
        members.evaluate(blocks, keys)
        source, few = np.arange(population), population // 4
        source[-few:] = np.random.default_rng(0).integers(few, size=few)
        members.copy(blocks, source, hyper)
        print(f"{population:>4} members: {pool.through:>8,} bytes through the coordinator ("
              f"{pool.through / population:,.0f} a member), {pool.between:>10,} of agents between workers", flush=True)


if __name__ == "__main__":
    main()
