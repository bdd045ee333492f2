"""Population-based training from command to result: 8 members of PPO on CartPole, 20 rounds.

    python benchmarks/pbt.py [--steps 200000] [--members 8] [--peer PYTHON]

Runs `jaxrl pbt` in processes of its own, with an empty cache of compiled programs and with a filled one; with --peer,
the interpreter of an environment as peers/sb3_tune_pbt.py wants it, that one in turn. Both: 4 environments x 128 steps,
4 epochs x 4 minibatches, 64-64 tanh, learning rate and clip range explored. Wall seconds are those of the whole
process; steps/s are of all members, without start-up and compilation.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INTERVAL = 10_240


def ours(steps: int, members: int, folder: Path, number: int) -> tuple[float, float, float]:
    """(wall seconds, member-steps/s, the best member's return)"""
    out = folder / f"run{number}"
    words = ["algo=ppo", "env=cartpole", "preset=none", f"population={members}", f"total_steps={steps}",
             f"interval={INTERVAL}", "eval_episodes=8", "algo.learning_rate=tag(log,interval(1e-5,1e-2))",
             "algo.clip=interval(0.1,0.4)", f"out={out}", "quiet=true"]
    program = "import sys; from jaxrl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, "pbt", *words], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")})
    wall = time.perf_counter() - begin
    summary = json.loads((out / "summary.json").read_text())
    return wall, summary["steps_per_second"], max(summary["eval_returns"])


def theirs(python: str, steps: int, members: int) -> tuple[float, float, float]:
    """The same of the peer."""
    script = Path(__file__).parent / "peers" / "sb3_tune_pbt.py"
    begin = time.perf_counter()
    done = subprocess.run([python, str(script), f"--steps={steps}", f"--members={members}", f"--interval={INTERVAL}"],
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    wall = time.perf_counter() - begin
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    values = dict(word.split("=") for word in line.split()[1:])
    return wall, float(values["member_steps_per_second"]), float(values["best"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--peer")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(3):
            wall, rate, best = ours(args.steps, args.members, Path(folder), number)
            print(f"jaxrl, {'filled' if number else 'empty'} cache: {wall:.1f} s, {rate / 1e3:.1f} k member-steps/s, "
                  f"best {best:.0f}", flush=True)
            if args.peer and number < 2:
                wall, rate, best = theirs(args.peer, args.steps, args.members)
                print(f"Ray Tune + SB3: {wall:.1f} s, {rate / 1e3:.1f} k member-steps/s, best {best:.0f}", flush=True)


if __name__ == "__main__":
    main()
