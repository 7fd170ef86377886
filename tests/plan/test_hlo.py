import pytest

from amopo_jax.plan.hlo import COMPUTATION, SHAPE, shape_bytes


@pytest.mark.parametrize(
  "text, size", [("bf16[8,128]{1,0:T(8,128)}", 2048), ("f32[]", 4), ("pred[3]", 3), ("s4[3]", 2), ("u32[2,0]", 0)]
)
def test_bytes_of_an_array_as_it_is_written(text, size):
  assert [shape_bytes(*shape) for shape in SHAPE.findall(text)] == [size]


def test_a_computation_begins_with_its_name():
  assert COMPUTATION.match("%body.7 (carried: (s32[], f32[4])) -> (s32[], f32[4]) {")[1] == "body.7"
  assert COMPUTATION.match("ENTRY %main (a: f32[4]) -> f32[4] {")[1] == "main"
  assert not COMPUTATION.match("  %sum = f32[4] add(%a, %b)")
