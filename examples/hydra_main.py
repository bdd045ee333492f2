"""Train from a Hydra script. Importing jaxrl registers its configs with Hydra.

    python examples/hydra_main.py algo=ppo env=cartpole total_steps=1e5 algo.learning_rate=1e-3
    python examples/hydra_main.py -m algo=ppo env=cartpole seed=0,1,2      # Hydra's own multirun

If a preset exists for the algorithm and the environment, it is applied. `~experiment` leaves it
out, and `experiment=NAME` selects another one. To add your own keys, write a config whose defaults
list starts with `config`, add `hydra.searchpath: [pkg://jaxrl_configs]`, and pass only the part
that belongs to jaxrl to `jaxrl.train`.
"""

import hydra

import jaxrl


@hydra.main(version_base=None, config_path="pkg://jaxrl_configs", config_name="config")
def main(config):
    """Train one run and print its greedy returns [seeds, episodes]."""
    run = jaxrl.train(config)
    print(run.returns)


if __name__ == "__main__":
    main()
