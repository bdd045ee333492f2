"""Speed of evolution strategies over devices or workers, and the bytes that they send.

    python benchmarks/evolution.py speed [--population 256] [--generations 100]
        [--devices 1] [--workers 0]
    python benchmarks/evolution.py bytes [--population 256]

`speed` measures generations per second of OpenAI-ES on CartPole with a 64-64 policy;
peers/evosax_es.py runs the same in evosax. Candidates play until the last episode of their block
has ended, so early generations, whose episodes are short, take less time. `bytes` counts the
pickled bytes between the coordinator and the workers, for policies of growing size.
"""

import argparse
import time

import jax
from counting import Counting

import jaxrl
from jaxrl import backend
from jaxrl import config as configs
from jaxrl.config.settings import RunConfig
from jaxrl.drivers.build import build
from jaxrl.population.generations import Generations
from jaxrl.population.remote_candidates import CandidateHost, RemoteEvaluator
from jaxrl.run import launch, learners

CHUNK = 10


def config_of(population: int, hidden: str, *more: str) -> RunConfig:
    """Return the config of ES on CartPole."""
    return jaxrl.compose([
        "algo=es", "env=cartpole", "preset=none", f"algo.population={population}",
        f"algo.network.hidden={hidden}", "algo.network.activation=tanh", *more])


def speed(args: argparse.Namespace) -> None:
    """Print generations per second, ten generations at a time."""
    config = config_of(
        args.population, "[64,64]", f"num_devices={args.devices}", f"workers={args.workers}")
    with learners.open_members(launch.prepare(config)) as members:
        keys = learners.member_keys(0, 1, learners.TRAIN)
        population = members.init(keys, learners.spread(config), 1000)
        start = time.perf_counter()
        members.compile(population, keys)
        if args.workers:
            members.advance(population, 1)                     # workers compile on first use
        print(f"compile {time.perf_counter() - start:.1f} s")
        for number in range(args.generations // CHUNK):
            start = time.perf_counter()
            population, metrics = members.advance(population, CHUNK)
            wall = time.perf_counter() - start
            print(f"jaxrl, generations {number * CHUNK + 1} to {(number + 1) * CHUNK}: "
                  f"{CHUNK / wall:.1f} per second, "
                  f"mean return {metrics['return_mean'][0]:.0f}", flush=True)


def count_bytes(args: argparse.Namespace) -> None:
    """Print bytes per generation and worker, after the first one, which sends the state."""
    for hidden in ("[]", "[32]", "[128,64]", "[512,256]", "[1024,1024]"):
        config = config_of(args.population, hidden, "env.time_limit=10")
        runner = build(config).runner
        pool = Counting(CandidateHost, (configs.to_plain(config),))
        evaluator = RemoteEvaluator(runner, pool)
        members = Generations(runner, 1, jax.local_devices()[:1], evaluator=evaluator)
        keys = learners.member_keys(0, 1, learners.TRAIN)
        population = members.init(keys, learners.spread(config), 10)
        population, _ = members.advance(population, 1)
        first = pool.through
        pool.through = 0
        population, _ = members.advance(population, 2)
        parameters = sum(x.size for x in jax.tree.leaves(population[0].agent.params))
        print(f"{parameters:>10,} parameters: {pool.through / 2:>10,.0f} bytes per generation "
              f"(the first: {first:,})")


def main() -> None:
    """Run the measurement that the command names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("speed", "bytes"))
    parser.add_argument("--population", type=int, default=256)
    parser.add_argument("--generations", type=int, default=100)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    backend.prepare()
    {"speed": speed, "bytes": count_bytes}[args.what](args)


if __name__ == "__main__":
    main()
