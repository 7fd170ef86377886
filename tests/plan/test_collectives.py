import pytest

from amopo_jax.plan import collectives
from amopo_jax.plan.collectives import Collective, read_collectives

PROGRAM = """
%all-reduce-scatter.3 (input: f32[64]) -> f32[16] {
  %sum.1 = f32[64]{0:T(256)} all-reduce(%input), channel_id=7, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %cut = f32[16]{0} dynamic-slice(%sum.1, %at), dynamic_slice_sizes={16}
}

ENTRY %main (p: bf16[1,128]) -> f32[8] {
  %all-gather.1 = bf16[8,128]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
  %start = (f32[2,4]{1,0}, f32[8,4]{1,0:T(8,128)}) all-gather-start(%x), channel_id=2, replica_groups=[2,4]<=[8]
  %done = f32[8,4]{1,0} all-gather-done(%start)
  %sum = (f32[16]{0}, pred[4]{0}) all-reduce(%a, %b), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  %part = f32[16]{0} reduce-scatter(%y), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %moved = f32[10]{0} collective-permute(%z), channel_id=4, source_target_pairs={{0,1},{1,0}}
  %kept = f32[1024]{0} add(%a, %all-reduce.7)
}
"""


def test_each_instruction_counts_once_by_what_a_ring_sends():
  found = read_collectives(PROGRAM, [0] * 8)
  assert found["all-gather"] == Collective(2, 8 * 128 * 2 * 7 / 8 + 8 * 4 * 4 * 3 / 4, 0)
  assert found["all-reduce"] == Collective(1, 2 * (16 * 4 + 4) / 2, 0)
  # Of 64 sums each of four chips keeps 16: three quarters are sent, however the compiler writes it.
  assert found["reduce-scatter"] == Collective(2, 2 * 64 * 4 * 3 / 4, 0)
  assert found["collective-permute"] == Collective(1, 40, 0)


def test_groups_that_span_slices_send_over_the_network():
  found = read_collectives(PROGRAM, [0, 0, 0, 0, 1, 1, 1, 1])
  assert found["all-reduce"] == Collective(1, 0, 2 * (16 * 4 + 4) / 2)  # of pairs, one in each slice
  gathered = found["all-gather"]
  assert gathered.network_bytes == 8 * 128 * 2 / 2
  assert gathered.link_bytes == pytest.approx(8 * 128 * 2 * 7 / 8 + 8 * 4 * 4 * 3 / 4)
  assert found["reduce-scatter"].network_bytes == 0


@pytest.mark.parametrize(
  "kind, shapes, result",
  [
    ("all-gather", "((f32[2,4], bf16[6]), (f32[8,4], bf16[24]))", 8 * 4 * 4 + 24 * 2),
    ("all-reduce", "(f32[16], bf16[8])", 16 * 4 + 8 * 2),
    ("reduce-scatter", "((f32[16], f32[8]), (f32[4], f32[2]))", 4 * 4 + 2 * 4),
    ("collective-permute", "(f32[10], f32[10], u32[], u32[])", 40),
    ("all-gather", "(u4[8], u4[32])", 16),
  ],
)
def test_a_start_names_its_operands_too_and_may_have_several_results(kind, shapes, result):
  line = f"  %start = {shapes} {kind}-start(%x), channel_id=2, replica_groups=[2,4]<=[8]"
  ((found, size, _, _),) = collectives._instructions(line, 8, {})
  assert (found, size) == (kind, result)


def test_what_runs_beside_products_in_several_fusions_is_one_collective():
  line = "  %all-gather.{0} = bf16[8,128] all-gather(%p.{0}), channel_id=7, replica_groups=[1,8]<=[8], dimensions={{0}}"
  chained = line + ', frontend_attributes={{chain_id="{1}"}}'
  text = "\n".join(chained.format(number, number // 5) for number in range(10))
  assert read_collectives(text, [0] * 8) == {"all-gather": Collective(2, 2 * 8 * 128 * 2 * 7 / 8, 0)}
  # Copies of a loop's turn keep the number of their channel.
  assert read_collectives("\n".join(line.format(number) for number in range(2)), [0] * 8)["all-gather"].count == 2


LOOP = """
%inner (p: f32[2]) -> f32[16] {
  %gathered = f32[16] all-gather(%p), channel_id=1, replica_groups=[1,8]<=[8], dimensions={0}
}

ENTRY %main (p: f32[2]) -> f32[16] {
  %moved = f32[10] collective-permute(%z), channel_id=3, source_target_pairs={{0,1},{1,0}}
}
"""


def test_what_is_in_a_loop_counts_as_often_as_it_turns():
  found = read_collectives(LOOP, [0] * 8, {"inner": 14.0})
  assert found == {"all-gather": Collective(14, 14 * 16 * 4 * 7 / 8, 0), "collective-permute": Collective(1, 40, 0)}


@pytest.mark.parametrize(
  "written, groups",
  [
    ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
    ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
    ("mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
    ("mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
    ("mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
    ("mesh['a'=2,'b'=2] {'b','a'}", [[0, 2, 1, 3]]),
    ("mesh[a=2,b=2] {a}", [[0, 2], [1, 3]]),
    ("mesh['a'=8] {'a':(2)4}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    ("mesh['a'=8] {'a':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
    ("mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
    ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", [[0, 2], [1, 3]]),
    ("mesh['x'=2,'y'=2], device_ids=(0,2,1,3) {'x'}", [[0, 1], [2, 3]]),
  ],
)
def test_groups_of_devices_in_every_spelling(written, groups):
  line = f"  %sum = f32[16]{{0}} all-reduce(%a), channel_id=1, replica_groups={written}, to_apply=%add"
  assert collectives._groups(line, 8) == groups


def test_what_the_hosts_exchange_between_slices_is_of_the_network():
  send = '  %s = ({}, u32[], token[]) send(%x, %t), frontend_attributes={{_xla_megascale_transfer_type="{}"}}\n'
  program = send.format("f32[100]{0}", "ALL_REDUCE") + send.format("bf16[8]{0}", "ALL_GATHER")
  found = read_collectives(program, [0, 0, 1, 1])
  assert found["all-reduce"] == Collective(1, 0, 2 * 400 / 2)
  assert found["all-gather"] == Collective(1, 0, 16)


def test_what_the_hosts_exchange_in_a_loop_counts_as_often_as_it_turns():
  send = (
    '  %s = (f32[100]{0}, u32[], token[]) send(%x, %t), frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}'
  )
  program = f"%layer (p: f32[2]) -> f32[2] {{\n{send}\n}}\n\nENTRY %main (p: f32[2]) -> f32[2] {{\n{send}\n}}\n"
  assert read_collectives(program, [0, 0, 1, 1], {"layer": 28.0})["all-reduce"] == Collective(29, 0, 29 * 400)


@pytest.mark.parametrize(("pairs", "link", "network"), [("{0,1},{1,0},{2,3},{3,2}", 40, 0), ("{0,2},{2,0}", 0, 40)])
def test_a_ring_is_of_the_network_only_where_it_leaves_a_slice(pairs, link, network):
  line = f"  %moved = f32[10] collective-permute(%z), channel_id=3, source_target_pairs={{{pairs}}}"
  assert read_collectives(line, [0, 0, 1, 1]) == {"collective-permute": Collective(1, link, network)}
