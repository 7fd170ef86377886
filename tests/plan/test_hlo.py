import pytest

from amopo_jax.plan.hlo import COMPUTATION, SHAPE, Array, Instruction, parse, permuted, root_of, shape_bytes


@pytest.mark.parametrize(
  "text, size", [("bf16[8,128]{1,0:T(8,128)}", 2048), ("f32[]", 4), ("pred[3]", 3), ("s4[3]", 2), ("u32[2,0]", 0)]
)
def test_bytes_of_an_array_as_it_is_written(text, size):
  assert [shape_bytes(*shape) for shape in SHAPE.findall(text)] == [size]


def test_a_computation_begins_with_its_name():
  assert COMPUTATION.match("%body.7 (carried: (s32[], f32[4])) -> (s32[], f32[4]) {")[1] == "body.7"
  assert COMPUTATION.match("ENTRY %main (a: f32[4]) -> f32[4] {")[1] == "main"
  assert not COMPUTATION.match("  %sum = f32[4] add(%a, %b)")


def test_an_instruction_says_what_it_makes_of_what():
  text = """
%inner (p: (s32[], bf16[8,128])) -> s32[] {
  %p = (s32[]{:T(128)S(2)}, /*index=1*/bf16[8,128]{1,0:T(8,128)(2,1)S(1)}) parameter(0), sharding={replicated}
  ROOT %last = s32[] get-tuple-element(%p), index=0, metadata={op_name="a(b)/c"}
}
"""
  [inner] = parse(text).values()
  arrays = (Array((), 4, 2), Array((8, 128), 2048, 1))
  assert inner["p"] == Instruction("p", False, "parameter", arrays, (), "0", ", sharding={replicated}")
  assert root_of(inner).name == "last"
  assert root_of(inner).operands == ("p",)


def test_the_devices_of_a_permute_are_pairs():
  assert permuted(", channel_id=3, source_target_pairs={{0,1},{1,0}}, metadata={}") == [(0, 1), (1, 0)]
  assert permuted(", replica_groups={{0,1}}") == []
