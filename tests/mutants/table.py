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
]
LEARNING: list[Mutant] = []
