"""Tables of packages, and the declarations behind them."""

from __future__ import annotations

import pytest

from jaxrl import registry
from jaxrl.config.check import bounds, short
from jaxrl.config.reading import declared
from jaxrl.config.settings import Settings
from jaxrl.declare import declarations
from jaxrl.errors import UserError


def test_a_name_in_two_packages_names_both():
    with pytest.raises(UserError, match='"ppo" is declared by two packages, algos and other'):
        registry.merge([("algos", {"ppo": "a:A"}), ("other", {"dqn": "b:B", "ppo": "c:C"})])
    assert registry.merge([("a", {"x": "a:X"}), ("b", {"y": "b:Y"})]) == {"x": "a:X", "y": "b:Y"}


def test_a_broken_package_is_left_out(monkeypatch):
    entry = registry.metadata.EntryPoint("mine", "no_such_package:TABLE", registry.ALGORITHMS)
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: [entry])
    with pytest.warns(UserWarning, match="no_such_package:TABLE cannot be loaded"):
        assert registry.merge(registry._tables(registry.ALGORITHMS)) == {}


@pytest.mark.parametrize("table", [["ppo"], {"ppo": 3}])
def test_a_table_that_is_none_is_left_out(table, monkeypatch):
    entry = registry.metadata.EntryPoint("mine", "tests.test_registry:TABLE", registry.NETWORKS)
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: [entry])
    monkeypatch.setattr("tests.test_registry.TABLE", table, raising=False)
    with pytest.warns(UserWarning, match="tests.test_registry:TABLE is left out: not a dict"):
        assert registry.merge(registry._tables(registry.NETWORKS)) == {}


@pytest.mark.parametrize(
    "target", ["no_such_package:Torso", "jaxrl.blocks.networks.modules:NoSuchTorso"]
)
def test_a_target_that_cannot_be_loaded_is_named(target, monkeypatch):
    monkeypatch.setattr(registry, "networks", lambda: {"mine": target})
    with pytest.raises(UserError, match=f'"mine" is declared as {target}, which cannot be loaded'):
        registry.network("mine")


@pytest.mark.parametrize("algo", registry.algorithms())
def test_every_declaration_is_sound(algo):
    for d in [*declarations(registry.algorithm(algo).config), *declarations(Settings)]:
        assert d.help, d.name
        if d.search is not None:
            assert d.low <= d.search.low < d.search.high <= d.high, d.name
        if isinstance(d.default, int | float) and not isinstance(d.default, bool):
            assert (d.low is None or d.low <= d.default) and (
                d.high is None or d.default <= d.high
            ), d.name


def test_numbers_are_written_short():
    assert [
        short(x) for x in (2.5e-4, 0.001, 0.99, 1e9, 5e5, 0.0, 1.0, None, True, (64, 64), -1e-7)
    ] == ["2.5e-4", "0.001", "0.99", "1e9", "500000", "0", "1", "null", "true", "[64,64]", "-1e-7"]
    known = declared("ppo")
    assert (
        bounds(known["algo.gamma"]) == "0 <= gamma <= 1"
        and bounds(known["log_every"]) == "log_every >= 1"
    )
