from amopo_jax.plan.hlo import parse
from amopo_jax.plan.loops import called_by, run_times

LOOPS = """
%inner (p: f32[2]) -> f32[16] {
  %gathered = f32[16] all-gather(%p), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
}

%body (p: f32[2]) -> f32[16] {
  ROOT %fused = f32[16] fusion(%p), kind=kLoop, calls=%inner
}

%more.1 (p: (s32[], f32[2])) -> pred[] {
  %end = s32[]{:T(128)} constant(7)
  %p = (s32[], f32[2]) parameter(0)
  %count = s32[] get-tuple-element(%p), index=0
  ROOT %less = pred[] compare(%count, %end), direction=LT
}

%more.2 (p: (s32[], s32[])) -> pred[] {
  %p = (s32[], s32[]) parameter(0)
  %count = s32[] get-tuple-element(%p), index=0
  %end = s32[] get-tuple-element(%p), index=1
  ROOT %less = pred[] compare(%count, %end), direction=LT
}

%micro (p: f32[2]) -> f32[16] {
  %begin = s32[]{:T(128)} constant(2)
  %start = (s32[], f32[2]) tuple(%begin, %q)
  %layers = (s32[], f32[2]) while(%start), condition=%more.1, body=%body, metadata={op_name="jvp(layers)/while"}
  %sum = f32[4] all-reduce(%q), channel_id=2, replica_groups=[1,8]<=[8], to_apply=%add
}

ENTRY %main (p: f32[2]) -> f32[16] {
  %p = f32[2] parameter(0)
  %micros = (s32[], s32[]) while(%p), condition=%more.2, body=%micro, metadata={op_name="jit(step)/while"}
}
"""


def test_a_loop_turns_as_often_as_its_condition_says_or_else_as_we_are_told():
  computations = parse(LOOPS)
  times = run_times(computations, {"jit(step)/while": 3.0}.__getitem__)
  assert (times["main"], times["micro"], times["body"], times["inner"]) == (1, 3, 3 * 5, 3 * 5)
  assert run_times(computations)["body"] == 5
  assert called_by(("while",), computations) == {"inner", "add"}


AROUND = """
%wide.windowed_dot_general_body_ag.7 (p: f32[2]) -> f32[2] {
  %left = f32[2] collective-permute(%p), channel_id=1, source_target_pairs={{0,3},{1,0},{2,1},{3,2},{4,7},{5,4},{6,5},{7,6}}
  %right = (f32[2], f32[2]) collective-permute-start(%q), channel_id=2, source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,5},{5,6},{6,7},{7,4}}
}

%layer (p: f32[2]) -> f32[2] {
  %product = f32[2] while(%p), condition=%more, body=%wide.windowed_dot_general_body_ag.7, metadata={op_name="a/jvp(layers)/while/body/dot_general"}
}

%more (p: pred[]) -> pred[] {
  ROOT %p = pred[] parameter(0)
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %layers = f32[2] while(%p), condition=%more, body=%layer, metadata={op_name="a/jvp(layers)/while"}
}
"""  # fmt: skip  # noqa: E501


def test_a_product_in_a_loop_around_a_ring_passes_on_as_many_parts_as_the_ring_has_chips():
  times = run_times(parse(AROUND), {"a/jvp(layers)/while": 7.0}.__getitem__)
  assert times["wide.windowed_dot_general_body_ag.7"] == 7 * 4 / 2
