"""Impossible dials are refused by name."""

import pytest

from amopo_jax.lab.spec import WorldSpec, read_dials
from amopo_jax.types import InputError


@pytest.mark.parametrize(
  "arguments, name",
  [
    ({"tied": -0.1}, "tied"),
    ({"conflict": 1.5}, "conflict"),
    ({"inverted": float("nan")}, "inverted"),
    ({"tied": 0.7, "inverted": 0.4}, r"tied \+ inverted"),
    ({"num_items": (1, 3)}, "num_items"),
    ({"num_items": (4, 3)}, "num_items"),
    ({"slack": (1, 4)}, "slack"),
    ({"dimensions": 7}, "dimensions"),
  ],
)
def test_impossible_specs_are_refused(arguments, name):
  with pytest.raises(InputError, match=f"world: {name} .*; keep it"):
    WorldSpec(**arguments)


def test_an_unknown_domain_is_refused_with_those_there_are():
  with pytest.raises(InputError, match="'poems' is unknown; choose one of text, arithmetic, programs"):
    WorldSpec(domain="poems")


def test_dials_are_read_in_the_type_that_they_have():
  assert read_dials(["noise=0.2", "num_items=2,3", "domain=programs", "dimensions=5"]) == WorldSpec(
    noise=0.2, num_items=(2, 3), domain="programs", dimensions=5
  )
  assert read_dials([]) == WorldSpec()


@pytest.mark.parametrize(
  "text, why",
  [
    ("volume=3", "no such dial; choose one of tied"),
    ("noise=much", "not a value of noise, which is 0.0"),
    ("slack=2", "not a value of slack, which is .1, 3."),
  ],
)
def test_a_dial_that_cannot_be_read_is_refused(text, why):
  with pytest.raises(InputError, match=f"--dial={text}: {why}"):
    read_dials([text])
