import dataclasses

import pytest

from amopo_jax.models.config import ModelConfig, RopeScaling
from amopo_jax.types import InputError

SMALL = ModelConfig(
  architecture="Qwen2ForCausalLM",
  vocab_size=32,
  width=8,
  num_layers=1,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  mlp_width=16,
  rope_scaling=RopeScaling(kind="linear", factor=2.0),
)


def test_equal_configs_have_equal_hashes_so_that_jit_compiles_once():
  twin = dataclasses.replace(SMALL, rope_scaling=RopeScaling(kind="linear", factor=2.0))
  assert twin == SMALL
  assert hash(twin) == hash(SMALL)
  assert dataclasses.replace(SMALL, qk_norm=True) != SMALL


@pytest.mark.parametrize(
  ("field", "value", "reason"),
  [
    ("num_heads", 3, "no multiple of num_kv_heads 2"),
    ("head_dim", 5, "is odd"),
    ("num_layers", 0, "not positive"),
    ("vocab_size", -1, "not positive"),
  ],
)
def test_impossible_sizes_are_refused_in_one_line(field: str, value: int, reason: str):
  with pytest.raises(InputError, match=reason) as refused:
    dataclasses.replace(SMALL, **{field: value})
  assert str(refused.value).startswith(f"model.{field}: ")
  assert "\n" not in str(refused.value)
