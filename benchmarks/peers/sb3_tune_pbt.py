"""Ray Tune's population-based training over Stable-Baselines3's PPO, at the settings of ../pbt.py, in an environment of
its own: pip install stable-baselines3 "ray[tune]"

    python benchmarks/peers/sb3_tune_pbt.py [--steps 200000] [--members 8] [--interval 10240]

All members are alive at once, each an actor with its share of the cores and one thread; actors are reused when a member
takes another's state. Fitness is the mean return of the last 100 training episodes, as is usual there.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

ENVS, T, BATCH, EPOCHS = 4, 128, 128, 4


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("steps", 200_000), ("members", 8), ("interval", 10_240)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "OMP_NUM_THREADS": "1"}
    path = tempfile.mkstemp()[1]                         # a line for each interval of each member, whatever Tune keeps
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
            self.model = PPO("MlpPolicy", make_vec_env("CartPole-v1", ENVS), n_steps=T, batch_size=BATCH,
                             n_epochs=EPOCHS, ent_coef=0.01, device="cpu")       # 64-64 tanh is its default
            self.reset_config(config)

        def reset_config(self, new_config):
            rate, clip = new_config["learning_rate"], new_config["clip"]
            self.model.learning_rate, self.model.clip_range = rate, lambda _: clip
            self.model._setup_lr_schedule()
            return True

        def step(self):
            begin = time.time()
            self.model.learn(args.interval, reset_num_timesteps=False)
            with open(path, "a") as file:
                file.write(f"{begin} {time.time()}\n")
            episodes = [episode["r"] for episode in self.model.ep_info_buffer]
            return {"return": sum(episodes) / max(len(episodes), 1), "steps": self.model.num_timesteps}

        def save_checkpoint(self, checkpoint_dir):
            self.model.save(os.path.join(checkpoint_dir, "model"))

        def load_checkpoint(self, checkpoint_dir):
            config = self.config
            self.model.set_parameters(os.path.join(checkpoint_dir, "model"))
            self.reset_config(config)

    cores = os.cpu_count()
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    scheduler = PopulationBasedTraining(
        time_attr="training_iteration", perturbation_interval=1, quantile_fraction=0.25, resample_probability=0.25,
        hyperparam_mutations={"learning_rate": tune.loguniform(1e-5, 1e-2), "clip": tune.uniform(0.1, 0.4)})
    rounds = -(-args.steps // args.interval)
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(Member, {"cpu": cores / args.members}),
            param_space={"learning_rate": tune.loguniform(1e-5, 1e-2), "clip": tune.uniform(0.1, 0.4)},
            tune_config=tune.TuneConfig(metric="return", mode="max", num_samples=args.members, scheduler=scheduler,
                                        reuse_actors=True),
            run_config=tune.RunConfig(stop={"training_iteration": rounds}, storage_path=folder, verbose=0)).fit()
        best = max(result.metrics["return"] for result in results)
    ray.shutdown()
    times = [[float(x) for x in line.split()] for line in Path(path).read_text().splitlines()]
    os.remove(path)
    begin, end = min(begin for begin, _ in times), max(end for _, end in times)
    done = len(times) * args.interval
    print(f"RESULT member_steps_per_second={done / (end - begin):.0f} best={best:.0f} member_steps={done}")


if __name__ == "__main__":
    main()
