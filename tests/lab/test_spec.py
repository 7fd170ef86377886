"""Impossible dials are refused by name."""

import pytest

from amopo_jax.lab.spec import WorldSpec
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
  ],
)
def test_impossible_specs_are_refused(arguments, name):
  with pytest.raises(InputError, match=f"world: {name} .*; keep it"):
    WorldSpec(**arguments)
