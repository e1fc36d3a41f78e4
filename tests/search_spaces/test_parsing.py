"""Reading spaces: every mistake is found, with its place."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spectune.search_spaces import Choice, Integer, LogUniform, SpaceError, When, parse_space


def test_a_whole_space_is_read() -> None:
    space = parse_space(
        {
            "lr": {"log_uniform": [3e-4, 1e-1]},
            "solver": {"choice": ["newton_schulz", "gram", "svd"]},
            "ns_steps": {"integer": [1, 8], "when": {"solver": ["newton_schulz", "gram"]}},
        }
    )
    assert space["lr"] == LogUniform(3e-4, 1e-1)
    assert space["solver"] == Choice(("newton_schulz", "gram", "svd"))
    assert space["ns_steps"] == When(Integer(1, 8), (("solver", ("newton_schulz", "gram")),))
    assert parse_space(space.document()) == space


def test_a_condition_on_one_value_needs_no_list() -> None:
    space = parse_space({"a": {"choice": [1, 2]}, "b": {"fixed": 0, "when": {"a": 2}}})
    assert space.decode([0.0]) == {"a": 1}
    assert space.decode([1.0]) == {"a": 2, "b": 0}


@pytest.mark.parametrize(
    ("domain", "pointer", "message"),
    [
        (0.1, "/lr", "a domain is needed"),
        ({"log_unifrom": [1, 2]}, "/lr/log_unifrom", "did you mean 'log_uniform'?"),
        ({"uniform": [0, 1], "integer": [0, 1]}, "/lr", "exactly one domain"),
        ({"when": {"a": 1}}, "/lr", "exactly one domain"),
        ({"uniform": 3}, "/lr/uniform", "two bounds are needed"),
        ({"uniform": [0, 1, 2]}, "/lr/uniform", "two bounds are needed"),
        ({"uniform": [2, 1]}, "/lr/uniform", "must be below the high one"),
        ({"uniform": [1, 1]}, "/lr/uniform", "must be below the high one"),
        ({"uniform": [0, math.inf]}, "/lr/uniform/1", "a finite number"),
        ({"uniform": [math.nan, 1]}, "/lr/uniform/0", "a finite number"),
        ({"uniform": [False, 1]}, "/lr/uniform/0", "a finite number"),
        ({"log_uniform": ["1e-3", 1]}, "/lr/log_uniform/0", "write 1.0e-3"),
        ({"log_uniform": [0, 1]}, "/lr/log_uniform/0", "above 0"),
        ({"zero_or_log_uniform": [0, 1]}, "/lr/zero_or_log_uniform/0", "above 0"),
        ({"one_minus_log_uniform": [0.9, 1.0]}, "/lr/one_minus_log_uniform/1", "below 1"),
        ({"integer": [1, 2.5]}, "/lr/integer/1", "an integer"),
        ({"log_integer": [0, 3]}, "/lr/log_integer/0", "above 0"),
        ({"choice": []}, "/lr/choice", "at least one value"),
        ({"choice": [1, 1.0]}, "/lr/choice/1", "listed twice"),
        ({"choice": [1, math.nan]}, "/lr/choice/1", "finite"),
        ({"choice": [[0.9, math.inf]]}, "/lr/choice/0", "finite"),
        ({"choice": [{}]}, "/lr/choice/0", "a number, a string"),
        ({"fixed": None}, "/lr/fixed", "a number, a string"),
        ({"fixed": 1, "when": 3}, "/lr/when", "a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_pointer(domain: Any, pointer: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_space({"lr": domain})
    (problem,) = caught.value.problems
    assert problem.pointer == pointer
    assert message in problem.message


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SpaceError) as caught:
        parse_space({"lr": {"uniform": [2, 1]}, "a/b": {"fixed": None}, "momentum": {"fixed": 0.9}})
    assert [problem.pointer for problem in caught.value.problems] == ["/lr/uniform", "/a~1b/fixed"]
