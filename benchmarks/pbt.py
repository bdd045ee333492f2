"""Time of population-based training from command to result: 8 members of PPO, 20 rounds.

    python benchmarks/pbt.py [--steps 200000] [--members 8] [--peer PYTHON]

The script runs `jaxrl pbt` on CartPole in separate processes, with an empty and with a filled cache
of compiled programs. --peer names the Python interpreter of an environment that
peers/sb3_tune_pbt.py describes; the peer then runs in alternation. Both use 4 environments x 128
steps, 4 epochs x 4 minibatches and 64-64 tanh, and explore learning rate and clip range. Wall
seconds cover the whole process. Steps/s cover all members, without start-up and compilation.
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


def run_jaxrl(steps: int, members: int, folder: Path, number: int) -> tuple[float, float, float]:
    """Return (wall seconds, member-steps/s, return of the best member) of jaxrl."""
    out = folder / f"run{number}"
    words = [
        "algo=ppo", "env=cartpole", "preset=none", f"population={members}", f"total_steps={steps}",
        f"interval={INTERVAL}", "eval_episodes=8",
        "algo.learning_rate=tag(log,interval(1e-5,1e-2))", "algo.clip=interval(0.1,0.4)",
        f"out={out}", "quiet=true"]
    program = "import sys; from jaxrl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, "pbt", *words], check=True, stdout=subprocess.DEVNULL,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")})
    wall = time.perf_counter() - begin
    summary = json.loads((out / "summary.json").read_text())
    return wall, summary["steps_per_second"], max(summary["eval_returns"])


def run_peer(python: str, steps: int, members: int) -> tuple[float, float, float]:
    """Return the same for the peer."""
    script = Path(__file__).parent / "peers" / "sb3_tune_pbt.py"
    begin = time.perf_counter()
    words = [f"--steps={steps}", f"--members={members}", f"--interval={INTERVAL}"]
    done = subprocess.run([python, str(script), *words], check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True)
    wall = time.perf_counter() - begin
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    values = dict(word.split("=") for word in line.split()[1:])
    return wall, float(values["member_steps_per_second"]), float(values["best"])


def show(name: str, wall: float, rate: float, best: float) -> None:
    """Print one result."""
    print(f"{name}: {wall:.1f} s, {rate / 1e3:.1f} k member-steps/s, best {best:.0f}", flush=True)


def main() -> None:
    """Run three times, and the peer after each of the first two."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--peer")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(3):
            cache = "filled" if number else "empty"
            result = run_jaxrl(args.steps, args.members, Path(folder), number)
            show(f"jaxrl, {cache} cache", *result)
            if args.peer and number < 2:
                show("Ray Tune + SB3", *run_peer(args.peer, args.steps, args.members))


if __name__ == "__main__":
    main()
