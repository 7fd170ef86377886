"""What the loops over layers leave behind: on a program written by hand, and on one that XLA compiled."""

import jax
import jax.numpy as jnp
import pytest

from amopo_jax.models.transformer import LAYERS
from amopo_jax.plan.stacks import read_stacks

TEXT = """
%body (carried: (s32[], f32[8,16], f32[4,16,16], bf16[4,8,16])) -> (s32[], f32[8,16], f32[4,16,16], bf16[4,8,16]) {
  %carried = (s32[], f32[8,16], f32[4,16,16], bf16[4,8,16]) parameter(0)
  %n = s32[] get-tuple-element(%carried), index=0
  %x = f32[8,16]{1,0:T(8,128)} get-tuple-element(%carried), index=1
  %w = f32[4,16,16]{2,1,0} get-tuple-element(%carried), index=2
  %kept = bf16[4,8,16]{2,1,0} get-tuple-element(%carried), index=3
  %more = bf16[4,8,16]{2,1,0} fusion(%kept, %x, %n), kind=kLoop, calls=%fused
  ROOT %out = (s32[], f32[8,16]{1,0}, f32[4,16,16]{2,1,0}, bf16[4,8,16]{2,1,0}) tuple(%m, %y, %w, /*index=3*/%more)
}

ENTRY %main (a: f32[8,16]) -> f32[8,16] {
  %loop = (s32[], f32[8,16], f32[4,16,16], bf16[4,8,16]) while(%start), condition=%cond, body=%body, METADATA
}
""".replace("METADATA", 'metadata={op_name="jit(step)/PATH/while"}')


@pytest.mark.parametrize(
  "path, expected",
  [
    (f"jvp({LAYERS})", (4 * 8 * 16 * 2, 0)),
    (f"transpose(jvp({LAYERS}))", (0, 4 * 8 * 16 * 2)),
    ("jvp(head)", (0, 0)),
  ],
)
def test_a_stack_that_a_loop_over_layers_writes_counts_and_one_that_passes_through_does_not(path, expected):
  assert read_stacks(TEXT.replace("PATH", path), 4) == expected
  assert read_stacks(TEXT.replace("PATH", path), 5) == (0, 0)


def test_xla_keeps_the_inputs_of_the_layers_and_stacks_their_gradients():
  layers, tokens, width = 6, 32, 16

  def loss(weights, x):
    with jax.named_scope(LAYERS):
      x, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)
    return jnp.sum(x * x)

  shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((layers, width, width), (tokens, width))]
  text = jax.jit(jax.grad(loss)).lower(*shapes).compile().as_text()
  found = read_stacks(text, layers)
  assert found.gradients == layers * width * width * 4
  assert found.activations >= layers * tokens * width * 4
  assert found.activations <= 3 * layers * tokens * width * 4  # input, output, slope of a layer
