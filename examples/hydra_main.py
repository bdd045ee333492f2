"""Train from a Hydra script of your own; the configs are registered when jaxrl is imported.

    python examples/hydra_main.py algo=ppo env=cartpole total_steps=1e5 algo.learning_rate=1e-3
    python examples/hydra_main.py -m algo=ppo env=cartpole seed=0,1,2           # Hydra's own multirun

The preset of the algorithm and environment is applied where there is one (`~experiment`: not; `experiment=NAME`:
another). To add keys, write a config of your own whose defaults list starts with `config`, and find ours through
`hydra.searchpath: [pkg://jaxrl_configs]`; hand `jaxrl.train` the part that is ours.
"""

import hydra

import jaxrl


@hydra.main(version_base=None, config_path="pkg://jaxrl_configs", config_name="config")
def main(config):
    run = jaxrl.train(config)
    print(run.returns)


if __name__ == "__main__":
    main()
