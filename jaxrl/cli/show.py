"""jaxrl show."""

from __future__ import annotations

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

Every value that a run would have, or has, with where it comes from: default, preset or override. For a run also how it
was made and how it ended.

Examples:
  jaxrl show algo=ppo env=pendulum
  jaxrl show runs/cartpole-ppo-20260101-120000-abcd
"""

ENDED = ("status", "error", "total_steps", "seconds", "eval_iqm", "eval_ci95", "best_step")     # of summary.json


def run(words: list[str]) -> None:
    if words and "=" not in words[0]:
        lines = of_run(words[0], words[1:])
    else:
        lines = of_config(words)
    print("\n".join(lines))


def of_config(words: list[str]) -> list[str]:
    """The values of a run that is not yet made."""
    rows = config.origins(words)
    preset = next(row.value for row in rows if row.key == "preset")
    score = reached(preset)
    head = [f"preset {preset}" + (f", reached {score}" if score else ""), ""] if preset != "none" else []
    return head + _table(rows)


def of_run(path: str, words: list[str]) -> list[str]:
    """The values of a stored run, how it was made, how it ended."""
    if words:
        raise UserError(f'"{words[0]}" is one word too many: jaxrl show RUN takes no settings')
    run = folder.open_run(path)
    made = folder.read_environment(run) or {}
    rows = config.origins_of_file(run / folder.CONFIG, made.get("command", ""))
    versions = made.get("versions") or {}
    git = made.get("git") or {}
    facts = {
        "command": made.get("command"),
        "started": made.get("started"),
        "device": "  ".join(f"{key} {value}" for key, value in (made.get("device") or {}).items()),
        "commit": git.get("commit") and git["commit"] + (" (with changes)" if git.get("changed") else ""),
        "versions": "  ".join(f"{name} {version}" for name, version in versions.items()),
        **{f"resumed {i + 1}": f"{again.get('started')}  {again.get('command')}"
           for i, again in enumerate(made.get("resumed") or [])},
    }
    summary = folder.read_summary(run) or {"status": "running, or ended without a word"}
    facts |= {key: short(summary[key]) for key in ENDED if summary.get(key) is not None}
    return [str(run), *table((key, value) for key, value in facts.items() if value), "", *_table(rows)]


def _table(rows: list[Origin]) -> list[str]:
    head = ("setting", "value", "origin", "")
    return table([(row.key, short(row.value), row.origin, row.help) for row in rows], head)
