"""jaxrl show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrl import config
from jaxrl.cli.list import reached
from jaxrl.cli.text import table
from jaxrl.config import Origin
from jaxrl.config.check import short
from jaxrl.errors import UserError
from jaxrl.storage import folder

HELP = """
jaxrl show algo=NAME env=NAME [key=value ...]
jaxrl show RUN

Shows every value that a run would have, or has, with its origin: default,
preset or override. For a run also how it was started and how it ended.

Examples:
  jaxrl show algo=ppo env=pendulum
  jaxrl show runs/cartpole-ppo-20260101-120000-abcd
"""

ENDED = (       # keys of summary.json
    "status", "error", "total_steps", "seconds", "eval_iqm", "eval_ci95", "best_step")


def run(words: list[str]) -> None:
    if words and "=" not in words[0]:
        lines = of_run(words[0], words[1:])
    else:
        lines = of_config(words)
    print("\n".join(lines))


def of_config(words: list[str]) -> list[str]:
    """Return the values of a config that `key=value` words describe."""
    rows = config.origins(words)
    preset = next(row.value for row in rows if row.key == "preset")
    if preset == "none":
        return _table(rows)
    score = reached(preset)
    head = f"preset {preset}, reached {score}" if score else f"preset {preset}"
    return [head, "", *_table(rows)]


def of_run(path: str, words: list[str]) -> list[str]:
    """Return the values of a stored run, how it was started, and how it ended."""
    if words:
        raise UserError(f'"{words[0]}" is one word too many: jaxrl show RUN takes no settings')
    run = folder.open_run(path)
    made = folder.read_environment(run) or {}
    rows = config.origins_of_file(run / folder.CONFIG, made.get("command", ""))
    summary = folder.read_summary(run) or {"status": "running, or ended without a summary"}
    facts = _start_of(made)
    facts |= {key: short(summary[key]) for key in ENDED if summary.get(key) is not None}
    given = [(key, value) for key, value in facts.items() if value]
    return [str(run), *table(given), "", *_table(rows)]


def _start_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a run was started, from its environment.json."""
    git = made.get("git") or {}
    commit = git.get("commit")
    if commit and git.get("changed"):
        commit += " (with changes)"
    facts = {
        "command": made.get("command"),
        "started": made.get("started"),
        "device": _pairs(made.get("device")),
        "commit": commit,
        "versions": _pairs(made.get("versions")),
    }
    for i, again in enumerate(made.get("resumed") or [], start=1):
        facts[f"resumed {i}"] = f"{again.get('started')}  {again.get('command')}"
    return facts


def _pairs(values: Mapping[str, Any] | None) -> str:
    return "  ".join(f"{key} {value}" for key, value in (values or {}).items())


def _table(rows: list[Origin]) -> list[str]:
    head = ("setting", "value", "origin", "")
    return table([(row.key, short(row.value), row.origin, row.help) for row in rows], head)
