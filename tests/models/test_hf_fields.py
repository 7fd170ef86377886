import pytest

from amopo_jax.models.hf_fields import HARMLESS, ONLY_VALUE, flag, integer_from, number_above
from amopo_jax.types import InputError


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None, [1]])
def test_integer_from_refuses_what_is_not_a_whole_number_from_one(value):
  with pytest.raises(InputError, match=r"^file: key is .*; it must be a whole number ≥ 1$"):
    integer_from({"key": value}, "key", 1, "file")


def test_integer_from_returns_the_bound():
  assert integer_from({"key": 0}, "key", 0, "file") == 0


@pytest.mark.parametrize("value", [0.0, -1, "1", True, None, float("nan"), float("inf")])
def test_number_above_refuses_what_is_not_a_finite_number_above(value):
  with pytest.raises(InputError, match=r"^file: key is .*; it must be a number > 0$"):
    number_above({"key": value}, "key", 0.0, "file")


def test_number_above_turns_whole_numbers_into_floats():
  value = number_above({"key": 500000}, "key", 0.0, "file")
  assert value == 500000.0
  assert type(value) is float


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_flag_refuses_what_is_not_a_truth_value(value):
  with pytest.raises(InputError, match="must be true or false"):
    flag({"key": value}, "key", "file")


def test_no_key_is_both_harmless_and_restricted():
  assert not HARMLESS & ONLY_VALUE.keys()
