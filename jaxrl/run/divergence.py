"""Book-keeping of the members that training has lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxrl.errors import reason
from jaxrl.population.protocol import Raised

MOST_NAMED = 8                # members in one message


class Divergence:
    """The members that no longer train, each with a message that says why.

    A member diverges when one of its numbers is not finite. It is lost when the environment or
    program of its block raises.
    """

    def __init__(self, count: int, note: Callable[[str], None]):
        """Start with `count` healthy members. note: receives warnings."""
        self.count = count
        self.messages: dict[int, str] = {}
        self._note = note

    @property
    def alive(self) -> list[int]:
        """The members that still train."""
        return [member for member in range(self.count) if member not in self.messages]

    @property
    def complete(self) -> bool:
        """True once no member is left."""
        return len(self.messages) == self.count

    def text(self) -> str | None:
        """Return all messages on one line, None if there are none."""
        return "; ".join(self.messages.values()) or None

    def not_finite(self, member: int, name: str, what: str, step: int) -> None:
        """Record a member, named `name`, whose `what` was not finite at an environment step."""
        others = len(self.messages) + 1 < self.count
        continues = "; the others continue" if others else ""
        self.messages[member] = (
            f"training diverged: {what} is not finite at step {step:,} "
            f"({name}{continues}). The state before that step is saved.")
        if others:                               # otherwise the run ends with this message
            self._note(f"warning: {self.messages[member]}")

    def lost(self, member: int, name: str, what: str, step: int) -> None:
        """Record a member, named `name`, whose environment or program raised."""
        self.messages[member] = f"{name} was lost at step {step:,}: {what}"

    def note_raised(self, raised: Raised, size: int, consequence: str,
                    described: Callable[[int], str]) -> dict[int, str]:
        """Note the blocks that raised. Return the message of each member that was alive in them.

        size: members per block. described: the name of a member with its own settings.
        """
        found: dict[int, str] = {}
        for block, error in raised.items():
            members = [i for i in self.alive if i // size == block]
            what = reason(error)
            if members:
                names = _listed([described(member) for member in members])
                self._note(f"warning: {what}. {consequence}: {names}; the others continue")
            found |= dict.fromkeys(members, what)
        return found


def _listed(names: list[str]) -> str:
    text = ", ".join(names[:MOST_NAMED])
    if len(names) > MOST_NAMED:
        text += f" and {len(names) - MOST_NAMED} more"
    return text


def advice(agent: Any) -> str:
    """Return the settings of an agent's config that may prevent divergence."""
    settings = [name for name in ("max_grad_norm", "learning_rate") if hasattr(agent, name)]
    return ", ".join(f"algo.{name}" for name in settings)
