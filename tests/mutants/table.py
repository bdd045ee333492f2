"""The mutants: a line, what it becomes, and the tests that must fail."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """One broken line.

    name: the mutant's name, which begins with what it breaks.
    file: the path of the source file from the root.
    right, wrong: a text that stands in the file once, and what replaces it.
    tests: arguments of pytest; one of these tests must fail.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """Return the file's text with the line broken, which must be there once."""
        count = text.count(self.right)
        if count != 1:
            raise ValueError(f"{self.name}: {self.right!r} is {count} times in {self.file}")
        return text.replace(self.right, self.wrong)


RETURNS = "jaxrl/blocks/losses/returns.py"
QUICK = [
    Mutant("ppo-advantage-sign", "algos/ppo.py",
           "ppo_clip(log_ratio, advantage, ", "ppo_clip(log_ratio, -advantage, ",
           ("tests/algos/test_ppo.py",)),
    Mutant("ppo-advantage-is-target", "algos/ppo.py",
           "value=rollout.value, advantage=advantage, target=target)",
           "value=rollout.value, advantage=target, target=advantage)",
           ("tests/algos/test_ppo.py",)),
    Mutant("ppo-clip-off", "jaxrl/blocks/losses/policy.py",
           "clipped = jnp.clip(ratio, 1.0 - epsilon, 1.0 + epsilon)",
           "clipped = jnp.clip(ratio, 1.0 - epsilon, 1.0 + 2.0 * epsilon)",
           ("tests/blocks/losses",)),
    Mutant("gae-death-bootstraps", RETURNS,
           "delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value",
           "delta = reward + gamma * next_value - value", ("tests/blocks/losses",)),
    # A2C's learning test does not see it: these errors are rare, and clipped gradients hide them.
    Mutant("gae-time-limit-is-death", RETURNS,
           "delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value",
           "delta = reward + gamma * jnp.where(_ended(terminated, truncated), 0.0, next_value) "
           "- value", ("tests/algos/test_probes.py", "-k", "time_limit")),
]
VALUE = "jaxrl/blocks/losses/value.py"
ON_POLICY = "tests/learning/test_on_policy.py"
OFF_POLICY = "tests/learning/test_off_policy.py"
CONTINUOUS = "tests/learning/test_continuous.py"
LEARNING = [
    Mutant("ppo-death-bootstraps", RETURNS,
           "delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value",
           "delta = reward + gamma * next_value - value", (ON_POLICY, "-k", "ppo-cartpole]")),
    Mutant("a2c-death-bootstraps", RETURNS,
           "delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value",
           "delta = reward + gamma * next_value - value", (ON_POLICY, "-k", "a2c-cartpole")),
    Mutant("dqn-death-bootstraps", VALUE,
           "discount = gamma[k] * jnp.where(terminated[k], 0.0, bootstrapped)",
           "discount = gamma[k] * bootstrapped", (OFF_POLICY, "-k", "dqn-cartpole and not qr")),
    Mutant("dqn-target-never-moves", "jaxrl/blocks/q_learning.py",
           "jnp.where(updates % target_every == 0, hyper.tau, 0.0)",
           "jnp.where(updates % target_every == 0, 0.0, 0.0)",
           (OFF_POLICY, "-k", "dqn-cartpole and not qr")),
    Mutant("sac-entropy-sign", "algos/sac.py",
           "return q(u) - alpha * log_prob, -log_prob", "return q(u) + alpha * log_prob, -log_prob",
           (CONTINUOUS, "-k", "sac-pendulum")),
    Mutant("ddpg-policy-descends", "algos/ddpg.py",
           "return -network.values(first, inputs, self.policy(params, inputs)).mean(), ()",
           "return network.values(first, inputs, self.policy(params, inputs)).mean(), ()",
           (CONTINUOUS, "-k", "ddpg-pendulum")),
    Mutant("es-worse-is-better", "algos/es.py",
           "return (ranks[:, 0] - ranks[:, 1]) / fitness.size",
           "return (ranks[:, 1] - ranks[:, 0]) / fitness.size",
           ("tests/learning/test_evolution.py", "-k", "test_cartpole[es]")),
    Mutant("r2d2-memory-ends-each-step", "jaxrl/blocks/networks/modules.py",
           "jnp.where(first[..., None], jnp.zeros_like(c), c), carry)",
           "jnp.zeros_like(c), carry)", ("tests/learning/test_sequences.py", "-k", "r2d2")),
    Mutant("pbt-copies-the-worst", "jaxrl/population/pbt.py",
           'order = np.argsort(-fitness, kind="stable")',
           'order = np.argsort(fitness, kind="stable")',
           ("tests/learning/test_pbt.py",)),
]
