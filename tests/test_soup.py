from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.data.tokenizer import load_tokenizer
from amopo_jax.soup import check_alike, mix, soup_shares
from amopo_jax.types import InputError


def test_a_soup_is_the_weighted_mean_in_the_type_of_the_first():
  policies = [
    {"a": {"kernel": jnp.full((2, 3), value, jnp.bfloat16)}, "b": jnp.arange(3.0) * value} for value in (1, 2, 4)
  ]
  found = mix(policies.__getitem__, [0, 1, 2], [0.5, 0.25, 0.25])
  assert found["a"]["kernel"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(found["a"]["kernel"], np.full((2, 3), 2.0))
  np.testing.assert_allclose(found["b"], np.arange(3.0) * 2)


def test_one_policy_is_left_as_it_is():
  policy = {"a": jnp.ones(2)}
  assert mix([policy].__getitem__, [0], [1.0]) is policy


def test_shares_sum_to_one():
  assert soup_shares([], 4) == [0.25] * 4
  assert soup_shares([1, 3, 0], 3) == [0.25, 0.75, 0]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_weights_that_make_no_shares_are_refused(weights):
  with pytest.raises(InputError, match="--weights: "):
    soup_shares(weights, 2)


def test_policies_that_are_not_alike_are_refused(world):
  tokenizer = load_tokenizer(world / "tokenizer")
  source = lambda config, path: SimpleNamespace(config=config, path=path, tokenizer=world / "tokenizer")
  check_alike([source("x", "one"), source("x", "two")], tokenizer)
  with pytest.raises(InputError, match="two: another model than that of one"):
    check_alike([source("x", "one"), source("y", "two")], tokenizer)
  with pytest.raises(InputError, match="two: another tokenizer"):
    check_alike([source("x", "one"), source("x", "two")], SimpleNamespace(fingerprint="other"))
