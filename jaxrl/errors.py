"""The three ways in which a command ends early, each with its exit code. The cli prints them; nothing else does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Interrupted", "Problem", "RunError", "UserError", "out_of_memory", "reason"]


class Problem(NamedTuple):
    """One mistake: a line that says what is wrong and, where there is one, a line that says what to do."""

    message: str
    hint: str | None = None


def _line(problem: Problem | str) -> Problem:
    """On one line, whatever a user's value in it holds: line breaks and control characters are written as escapes."""
    problem = Problem(problem) if isinstance(problem, str) else problem
    return Problem(*(text and "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) for text in problem))


class UserError(Exception):
    """Bad usage, config or input. Several mistakes are reported at once.

    UserError("text"), UserError("text", "hint") or UserError([Problem("text", "hint"), "text", ...])
    """

    exit_code = 2

    def __init__(self, problems: str | Iterable[Problem | str], hint: str | None = None):
        if isinstance(problems, str):
            problems = [Problem(problems, hint)]
        self.problems = [_line(problem) for problem in problems]
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(" ".join(filter(None, problem)) for problem in self.problems)


class RunError(Exception):
    """A run that failed or diverged: RunError("text") or RunError("text", "hint")."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None):
        self.problems = [Problem(message, hint)]
        super().__init__(message, hint)

    def __str__(self) -> str:
        return " ".join(filter(None, self.problems[0]))


def reason(error: BaseException) -> str:
    """What was raised, on one line: its type and text. Of a callback's error, which XLA hands on with its traceback as
    text, what the callback raised."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        said = [line for line in text.partition("\n--------")[0].splitlines() if line.strip()]
        if len(said) > 1 and not said[-1].startswith((" ", "Traceback")):
            return " ".join(said[-1].split())
    if isinstance(error, RunError):
        return error.problems[0].message
    text = " ".join(text.split())
    return text if isinstance(error, UserError) else type(error).__name__ + (f": {text}" if text else "")


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that a device had no memory left, in XLA's words."""
    return "RESOURCE_EXHAUSTED" in str(error)


class Interrupted(Exception):
    """A signal ended the run, after its state was saved."""

    def __init__(self, signum: int):
        self.signum = int(signum)
        super().__init__(self.signum)

    @property
    def exit_code(self) -> int:
        """As a shell reports a signal."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"stopped by signal {self.signum}"
