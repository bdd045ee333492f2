"""Ray Tune's population-based training of Stable-Baselines3's PPO, with the settings of ../pbt.py.

    python benchmarks/peers/sb3_tune_pbt.py [--steps 200000] [--members 8] [--interval 10240]

Use a separate environment: pip install stable-baselines3 "ray[tune]"

All members run at once. Each is an actor with its share of the cores and one thread. Actors are
reused when a member takes over the state of another. Fitness is the mean return of the last 100
training episodes, as usual in Stable-Baselines3.
"""

import argparse
import math
import os
import tempfile
import time
from pathlib import Path

ENVS = 4
T = 128
BATCH = 128
EPOCHS = 4


def main() -> None:
    """Run the population and print its speed and the best return."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--interval", type=int, default=10_240)
    args = parser.parse_args()
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "OMP_NUM_THREADS": "1"}
    path = tempfile.mkstemp()[1]         # one line per interval of each member
    import ray
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    class Member(tune.Trainable):
        """One learner."""

        def setup(self, config):
            import torch
            from stable_baselines3 import PPO
            from stable_baselines3.common.env_util import make_vec_env

            torch.set_num_threads(1)
            self.model = PPO(            # its default network is 64-64 tanh
                "MlpPolicy", make_vec_env("CartPole-v1", ENVS), n_steps=T, batch_size=BATCH,
                n_epochs=EPOCHS, ent_coef=0.01, device="cpu")
            self.reset_config(config)

        def reset_config(self, new_config):
            clip = new_config["clip"]
            self.model.learning_rate = new_config["learning_rate"]
            self.model.clip_range = lambda _: clip
            self.model._setup_lr_schedule()
            return True

        def step(self):
            begin = time.time()
            self.model.learn(args.interval, reset_num_timesteps=False)
            with open(path, "a") as file:
                file.write(f"{begin} {time.time()}\n")
            episodes = [episode["r"] for episode in self.model.ep_info_buffer]
            mean_return = sum(episodes) / max(len(episodes), 1)
            return {"return": mean_return, "steps": self.model.num_timesteps}

        def save_checkpoint(self, checkpoint_dir):
            self.model.save(os.path.join(checkpoint_dir, "model"))

        def load_checkpoint(self, checkpoint_dir):
            config = self.config
            self.model.set_parameters(os.path.join(checkpoint_dir, "model"))
            self.reset_config(config)

    cores = os.cpu_count()
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    space = {"learning_rate": tune.loguniform(1e-5, 1e-2), "clip": tune.uniform(0.1, 0.4)}
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=1, quantile_fraction=0.25,
        resample_probability=0.25, hyperparam_mutations=space)
    rounds = math.ceil(args.steps / args.interval)
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(Member, {"cpu": cores / args.members}),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="return", mode="max", num_samples=args.members, scheduler=scheduler,
                reuse_actors=True),
            run_config=tune.RunConfig(
                stop={"training_iteration": rounds}, storage_path=folder, verbose=0)).fit()
        best = max(result.metrics["return"] for result in results)
    ray.shutdown()
    times = [[float(x) for x in line.split()] for line in Path(path).read_text().splitlines()]
    os.remove(path)
    begin = min(begin for begin, _ in times)
    end = max(end for _, end in times)
    done = len(times) * args.interval
    rate = done / (end - begin)
    print(f"RESULT member_steps_per_second={rate:.0f} best={best:.0f} member_steps={done}")


if __name__ == "__main__":
    main()
