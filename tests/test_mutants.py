"""The mutants still fit the source. `python -m tests.mutants` sees that tests kill them."""

import pytest

from tests.mutants.table import LEARNING, QUICK
from tests.source import ROOT

MUTANTS = [*QUICK, *LEARNING]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_the_line_is_there_once(mutant):
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.apply(text) != text
    assert all((ROOT / word).exists() for word in mutant.tests if word.startswith("tests/"))


def test_a_line_that_is_gone_is_an_error():
    with pytest.raises(ValueError, match="0 times"):
        MUTANTS[0].apply("")
