import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.data.tokenizer import load_tokenizer
from amopo_jax.policy import find_policy
from amopo_jax.soup import check_alike, mix, soup_shares
from amopo_jax.types import InputError


@pytest.fixture
def source(make_spec, world):
  """Makes a policy's source by its path."""
  found = find_policy("", dict(make_spec().model.arch))._replace(tokenizer=str(world / "tokenizer"))
  return lambda path: found._replace(path=path)


def test_a_soup_is_the_weighted_mean_in_the_type_of_the_first(source):
  policy = lambda value: {"a": {"kernel": jnp.full((2, 3), value, jnp.bfloat16)}, "b": jnp.arange(3.0) * value}
  policies = {name: policy(value) for name, value in (("one", 1.0), ("two", 2.0), ("four", 4.0))}
  found = mix(lambda source: policies[source.path], [source(name) for name in policies], [0.5, 0.25, 0.25])
  assert found["a"]["kernel"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(found["a"]["kernel"], np.full((2, 3), 2.0))
  np.testing.assert_allclose(found["b"], np.arange(3.0) * 2)


def test_one_policy_is_left_as_it_is(source):
  policy = {"a": jnp.ones(2)}
  assert mix(lambda source: policy, [source("one")], [1.0])["a"] is policy["a"]


def test_shares_sum_to_one():
  assert soup_shares([], 4) == [0.25] * 4
  assert soup_shares([1.0, 3.0, 0.0], 3) == [0.25, 0.75, 0]


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [float("nan"), 1.0]])
def test_weights_that_make_no_shares_are_refused(weights):
  with pytest.raises(InputError, match="--weights: "):
    soup_shares(weights, 2)


def test_policies_that_are_not_alike_are_refused(source, world, tmp_path):
  tokenizer, one, two = load_tokenizer(world / "tokenizer"), source("one"), source("two")
  check_alike([one, two], tokenizer)
  with pytest.raises(InputError, match="two: another model than that of one"):
    check_alike([one, two._replace(config=dataclasses.replace(two.config, norm_eps=0.5))], tokenizer)
  (tmp_path / "tokenizer").mkdir()
  for file in (world / "tokenizer").iterdir():
    text = file.read_text().replace("assistant", "helper")
    (tmp_path / "tokenizer" / file.name).write_text(text)
  with pytest.raises(InputError, match="two: another tokenizer"):
    check_alike([one, two._replace(tokenizer=str(tmp_path / "tokenizer"))], tokenizer)
