import pytest

from amopo_jax.models.hf_config import from_hf
from amopo_jax.policy import count_parameters
from benchmarks.shapes import SHAPES


@pytest.mark.parametrize(
  "shape, millions",
  [("small", 25.9), ("qwen2.5-0.5b", 494.0), ("qwen2.5-7b", 7615.6)],  # the last two: the model cards of Qwen2.5
)
def test_shapes_have_the_parameters_of_their_models(shape, millions):
  assert count_parameters(from_hf(SHAPES[shape], shape)) / 1e6 == pytest.approx(millions, abs=0.1)


def test_four_layers_keep_everything_else():
  whole, cut = SHAPES["qwen2.5-0.5b"], SHAPES["qwen2.5-0.5b-4l"]
  assert {name for name in whole if whole[name] != cut[name]} == {"num_hidden_layers"}
