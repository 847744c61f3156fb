"""The corpus of seeds: read strictly."""

import pytest

from tests.simulation import corpus

CATCH_MUTATIONS = {551, 872, 1666, 1736}
ONCE_OPEN = {406, 9875, 9919, 10093}


def test_ranges_and_single_seeds() -> None:
    text = "# why\n\n7 found a bug\n0-2 the first ones\n"
    assert corpus.read(text) == {**dict.fromkeys(range(3), "the first ones"), 7: "found a bug"}


@pytest.mark.parametrize(
    ("text", "said"),
    [("7\n", "no reason"), ("0-9 first\n5 again\n", "seed 5 stands there twice"), ("x y\n", "x")],
)
def test_a_damaged_line_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        corpus.read(text)


def test_what_make_test_runs() -> None:
    seeds = set(corpus.seeds())
    assert set(range(400)) | CATCH_MUTATIONS | ONCE_OPEN <= seeds
