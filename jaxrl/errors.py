"""Errors that end a command early, each with its exit code. Only the command line prints them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Interrupted", "Problem", "RunError", "UserError", "out_of_memory", "reason"]


class Problem(NamedTuple):
    """One mistake: a line that says what is wrong, and optionally a line that says what to do."""

    message: str
    hint: str | None = None


def _line(problem: Problem | str) -> Problem:
    """Return the problem with line breaks and control characters of its texts as escapes."""
    if isinstance(problem, str):
        problem = Problem(problem)
    hint = problem.hint
    return Problem(_printable(problem.message), _printable(hint) if hint else hint)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class UserError(Exception):
    """A mistake in usage, config or input. One error may report several mistakes.

    UserError("text"), UserError("text", "hint") or UserError([Problem("text", "hint"), "text"])
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
    """A failed or diverged run: RunError("text") or RunError("text", "hint")."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None):
        self.problems = [Problem(message, hint)]
        super().__init__(message, hint)

    def __str__(self) -> str:
        return " ".join(filter(None, self.problems[0]))


def reason(error: BaseException) -> str:
    """Return the type and text of an error on one line.

    XLA reports an error of a callback as text with a traceback; its last line is returned.
    """
    text = str(error)
    if "Traceback (most recent call last)" in text:
        lines = [line for line in text.partition("\n--------")[0].splitlines() if line.strip()]
        if len(lines) > 1 and not lines[-1].startswith((" ", "Traceback")):
            return " ".join(lines[-1].split())
    if isinstance(error, RunError):
        return error.problems[0].message
    text = " ".join(text.split())
    if isinstance(error, UserError):
        return text
    return ": ".join(filter(None, (type(error).__name__, text)))


def out_of_memory(error: BaseException) -> bool:
    """Tell whether XLA reports that a device had no memory left."""
    return "RESOURCE_EXHAUSTED" in str(error)


class Interrupted(Exception):
    """A run that a signal ended, after its state was saved."""

    def __init__(self, signum: int):
        self.signum = int(signum)
        super().__init__(self.signum)

    @property
    def exit_code(self) -> int:
        """The exit code by which a shell reports the signal."""
        return 128 + self.signum

    def __str__(self) -> str:
        return f"stopped by signal {self.signum}"
