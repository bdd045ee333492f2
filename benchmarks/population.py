"""Bytes that a round of population-based training sends, as the population grows.

    python benchmarks/population.py

A round is a chunk of training, an evaluation, and a decision that replaces a quarter of the members
by copies of others, most of which are in another block. Bytes are counted as pickled between
processes. Those through the coordinator are counted apart from agents, which workers send to each
other by reference. The population trains PPO on CartPole, 64-64, in blocks of 4 members.
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
    """Print the bytes of one round for three sizes of the population."""
    backend.prepare()
    for population in (8, 32, 128):
        config = jaxrl.compose([
            "algo=ppo", "env=cartpole", "preset=none", "eval_episodes=8",
            f"num_seeds={population}"])
        learner = build(config)
        keys = learners.member_keys(0, population, learners.TRAIN)
        pool = Counting(
            BlockHost, (configs.to_plain(config), SIZE, config.settings.eval_episodes))
        members = RemoteMembers(learner.runner, population, pool, size=SIZE)
        hyper = jax.tree.map(np.asarray, learners.spread(config))
        blocks = members.init(keys, hyper, 10)
        pool.through = 0
        pool.between = 0
        blocks, _ = members.advance(blocks, 1)
        members.evaluate(blocks, keys)
        source = np.arange(population)
        quarter = population // 4
        source[-quarter:] = np.random.default_rng(0).integers(quarter, size=quarter)
        members.copy(blocks, source, hyper)
        print(f"{population:>4} members: {pool.through:>8,} bytes through the coordinator "
              f"({pool.through / population:,.0f} per member), "
              f"{pool.between:>10,} of agents between workers", flush=True)


if __name__ == "__main__":
    main()
