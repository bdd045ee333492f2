"""Texts of mistakes: every one is named, all at once."""

from __future__ import annotations

import pytest

from jaxrl import config, registry
from jaxrl.config.check import short, strip_optional
from jaxrl.config.reading import declared
from jaxrl.errors import UserError
from tests.config.helpers import BASE, problems, with_helps


@pytest.mark.parametrize(
    "words, text",
    [
        (
            ("algo=pp0", "env=cartpole"),
            'unknown algo "pp0". Did you mean: ppo?   (jaxrl list algos)',
        ),
        (
            ("algo=PPO", "env=cartpole"),
            'unknown algo "PPO". Did you mean: ppo?   (jaxrl list algos)',
        ),
        (
            ("algo=ppo", "env=CartPol"),
            'unknown env "CartPol". Did you mean: cartpole?   (jaxrl list envs)',
        ),
        (
            ("algo.learning_rte=1",),
            'unknown key "algo.learning_rte" for ppo. '
            "Did you mean: algo.learning_rate (default 2.5e-4, <algo.learning_rate>)?",
        ),
        (
            ("learning_rate=1",),
            'unknown key "learning_rate". '
            "Did you mean: algo.learning_rate (default 2.5e-4, <algo.learning_rate>)?",
        ),
        (("sead=1",), 'unknown key "sead". Did you mean: seed (default 0, <seed>)?'),
        (("qqqqqq=1",), 'unknown key "qqqqqq".   (jaxrl train --help)'),
        (("algo.qqqqqq=1",), 'unknown key "algo.qqqqqq" for ppo.   (jaxrl list ppo)'),
        (
            ("env.params.lenth=1",),
            'unknown key "env.params.lenth" for cartpole. '
            "Did you mean: env.params.length (default 0.5)?",
        ),
        (("env.params.length=x",), 'env.params.length="x" is not a number'),
        (("algo.gamma=1.3",), "algo.gamma=1.3 is out of range: 0 <= gamma <= 1 (<algo.gamma>)"),
        (
            ("algo.num_envs=0",),
            "algo.num_envs=0 is out of range: 1 <= num_envs <= 10000000 (<algo.num_envs>)",
        ),
        (("algo.learning_rate=fast",), 'algo.learning_rate="fast" is not a number'),
        (("algo.learning_rate=null",), "algo.learning_rate=null is not a number"),
        (("seed=1.5",), "seed=1.5 is not a whole number"),
        (("total_steps=1e400",), "total_steps=1e400 is not a finite number"),
        (("quiet=3",), "quiet=3 is not true or false"),
        (("device=gpuu",), 'device="gpuu" is not one of: auto, cpu, gpu. Did you mean: gpu?'),
        (("algo.network.hidden=64",), "algo.network.hidden=64 is not a list, such as [64,64]"),
        (
            ("algo.network.hidden=[64,0]",),
            "algo.network.hidden=[64,0] is out of range: 1 <= hidden <= 100000 "
            "(<algo.network.hidden>)",
        ),
        (("preset=foo",), 'unknown preset "foo".   (jaxrl list experiments)'),
        (
            ("algo.learning_rate=1e-4,3e-4",),
            "algo.learning_rate=1e-4,3e-4 names several values, this command takes one. "
            "To try each: jaxrl sweep (a list is written [1e-4,3e-4])",
        ),
        (
            ("seed=range(1,3)",),
            "seed=range(1,3) names several values, this command takes one. "
            "To try each: jaxrl sweep (a list is written [range(1,3)])",
        ),
        (("--seed",), '"--seed" is not understood. Settings are written without dashes: seed=...'),
        (("~seed",), '"~seed": a setting cannot be deleted. Leave it out, or give another value'),
        (
            ("foo",),
            '"foo" is not a setting. Settings are written key=value, such as algo=ppo env=cartpole',
        ),
        (
            ("init_from=${oc.env:HOME}",),
            'init_from="${oc.env:HOME}" holds an interpolation; write the value itself',
        ),
        (
            ("algo.num_envs=64", "algo.rollout_length=100", "algo.minibatches=48"),
            "num_envs x rollout_length = 64 x 100 = 6,400 does not divide into 48 minibatches. "
            "Nearest: 40, 50",
        ),
    ],
)
def test_error_texts(words, text):
    assert problems(*words) == [with_helps(text)]


def test_missing_names():
    with pytest.raises(UserError) as caught:
        config.compose([])
    algo, env = (problem.message for problem in caught.value.problems)
    assert (
        algo.startswith("algo= is missing. There are: ")
        and "ppo" in algo
        and algo.endswith("(jaxrl list algos)")
    )
    assert env.startswith("env= is missing. There are: cartpole, pendulum") and env.endswith(
        "(jaxrl list envs)"
    )


def test_all_mistakes_at_once():
    found = problems(
        "algo=ppo", "env=cartpol", "sead=1", "algo.gamma=2", "algo.lamm=1", "num_seeds=0", "foo",
        "env.params.length=1",
    )
    assert len(found) == 6 and all(
        any(word in text for text in found)
        for word in ("cartpol", "sead", "algo.gamma", "algo.lamm", "num_seeds", "foo")
    )


def test_what_does_not_fit_whatever_the_settings_is_said_beside_other_mistakes(monkeypatch):
    monkeypatch.setattr(
        registry.algorithm("ppo").config, "problems",
        lambda self, spec: [f"{{algo}} needs Box actions, {{env}} has {spec.action}"],
    )
    assert problems("algo.gamma=2") == [
        with_helps("algo.gamma=2 is out of range: 0 <= gamma <= 1 (<algo.gamma>)"),
        "ppo needs Box actions, cartpole has Discrete(2)",
    ]


# --- fuzz over the declarations


KEYS = declared("ppo")


def wrong_values():
    for key, d in KEYS.items():
        kind, optional = strip_optional(d.type)
        listed = getattr(kind, "__origin__", None) is tuple
        as_word = (lambda x: f"[{short(x)}]") if listed else short
        if kind is not str or d.choices:
            yield key, f"{key}=wrong_type"
        if kind in (int, float):
            yield key, f"{key}=1e400"
        if d.low is not None:
            yield key, f"{key}={as_word(d.low - 1)}"
        if d.high is not None:
            yield (
                key,
                f"{key}={d.high + 1:.0f}" if kind is int else f"{key}={as_word(d.high * 2 + 1)}",
            )
        if not optional and key not in ("preset", "env.time_limit"):
            yield key, f"{key}=null"
        yield key, f"{key}=[[1]]"
        yield key, f"{key}={{a: 1}}"
        yield key, f"{key[:-1] + 'zz' if key.count('.') else key + 'zz'}=1"


@pytest.mark.parametrize("key, word", [pytest.param(*case, id=case[1]) for case in wrong_values()])
def test_a_wrong_value_is_named(key, word):
    found = problems(word)
    assert len(found) == 1 and word.partition("=")[0] in found[0]


def test_the_ends_of_the_ranges_are_allowed():
    for key, d in KEYS.items():
        for end in (d.low, d.high):
            if end is not None and key not in (
                "algo.minibatches", "algo.num_envs", "algo.rollout_length",
            ):
                config.compose(
                    [
                        *BASE,
                        f"{key}={f'[{end}]' if isinstance(d.default, tuple) else f'{end:.15g}'}",
                    ]
                )
