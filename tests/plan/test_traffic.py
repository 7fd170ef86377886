import pytest

from amopo_jax.plan.hlo import parse
from amopo_jax.plan.traffic import chained, traffic

PROGRAM = """
%sliced (stack: f32[6,64,128], at: s32[]) -> bf16[1,64,128] {
  %stack = f32[6,64,128]{2,1,0:T(8,128)} parameter(0)
  %at = s32[]{:T(128)S(6)} parameter(1)
  %slice = f32[1,64,128]{2,1,0:T(8,128)} dynamic-slice(%stack, %at, %at, %at), dynamic_slice_sizes={1,64,128}
  ROOT %half = bf16[1,64,128]{2,1,0:T(8,128)(2,1)S(1)} convert(%slice)
}

%written (stack: f32[6,64,128], new: f32[1,64,128], at: s32[]) -> f32[6,64,128] {
  %stack = f32[6,64,128]{2,1,0:T(8,128)} parameter(0)
  %new = f32[1,64,128]{2,1,0:T(8,128)S(1)} parameter(1)
  %at = s32[]{:T(128)S(6)} parameter(2)
  ROOT %changed = f32[6,64,128]{2,1,0:T(8,128)} dynamic-update-slice(%stack, %new, %at, %at, %at)
}

%nested (stack: f32[6,64,128], at: s32[], x: f32[64,128]) -> (f32[64,128], f32[64,128]) {
  %x = f32[64,128]{1,0:T(8,128)} parameter(2)
  %stack = f32[6,64,128]{2,1,0:T(8,128)} parameter(0)
  %at = s32[]{:T(128)S(6)} parameter(1)
  %part = bf16[1,64,128]{2,1,0} fusion(%stack, %at), kind=kLoop, calls=%sliced
  %sum = f32[64,128]{1,0:T(8,128)} add(%x, %part)
  ROOT %both = (f32[64,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)}) tuple(%sum, %x)
}

%gathering (x: bf16[16,128], to: bf16[64,128]) -> (bf16[16,128], bf16[64,128]) {
  %x = bf16[16,128]{1,0:T(8,128)(2,1)} parameter(0)
  %to = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(1)
  %gathered = bf16[64,128]{1,0:T(8,128)(2,1)} all-gather(%x), frontend_attributes={chain_id="2"}
  ROOT %state = (bf16[16,128]{1,0:T(8,128)(2,1)}, bf16[64,128]{1,0:T(8,128)(2,1)}) custom-call(%gathered, %to)
}

ENTRY %main (stack: f32[6,64,128]) -> f32[6,64,128] {
  %stack = f32[6,64,128]{2,1,0:T(8,128)} parameter(0)
  %x = f32[64,128]{1,0:T(8,128)} parameter(1)
  %at = s32[]{:T(128)S(6)} parameter(2)
  %near = f32[64,128]{1,0:T(8,128)S(1)} parameter(3)
  %small = bf16[16,128]{1,0:T(8,128)(2,1)} parameter(4)
  %large = bf16[64,128]{1,0:T(8,128)(2,1)} parameter(5)
  %sum = f32[64,128]{1,0:T(8,128)} add(%x, %near)
  %all_near = f32[64,128]{1,0:T(8,128)S(1)} add(%near, %near)
  %cut = bf16[1,64,128]{2,1,0:T(8,128)(2,1)S(1)} fusion(%stack, %at), kind=kLoop, calls=%sliced
  %put = f32[6,64,128]{2,1,0:T(8,128)} fusion(%stack, %cut, %at), kind=kLoop, calls=%written
  %two = (f32[64,128]{1,0:T(8,128)}, f32[64,128]{1,0:T(8,128)}) fusion(%stack, %at, %x), kind=kLoop, calls=%nested
  %fetch = (f32[64,128]{1,0:T(8,128)S(1)}, f32[64,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %fetched = f32[64,128]{1,0:T(8,128)S(1)} copy-done(%fetch)
  %first = ((f32[6,64,128]{2,1,0}), f32[1,64,128]{2,1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%stack), slice={[0:1]}
  %gather = (bf16[16,128]{1,0:T(8,128)(2,1)}, /*index=1*/bf16[64,128]{1,0}) fusion(%small, %large), calls=%gathering
  %looks = f32[64,128]{1,0} custom-call(%x, %near), custom_call_target="tpu_custom_call"
  %room = f32[64,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %whole = f32[6,64,128]{2,1,0:T(8,128)} while(%stack), condition=%more, body=%turn
}
"""
ONE = 64 * 128 * 4


@pytest.mark.parametrize(
  "name, moved",
  [
    ("sum", 2 * ONE),  # one operand and the result; the other is near already
    ("all_near", 0),
    ("cut", ONE),  # a slice of the stack
    ("put", ONE),  # a slice of the stack, in place
    ("two", 3 * ONE),  # a slice and an array are read, the array is handed on, the sum written
    ("fetch", ONE),
    ("fetched", 0),
    ("first", ONE),
    ("gather", 0),  # counted once for all the steps of its chain
    ("looks", 2 * ONE),
    ("room", 0),
    ("whole", 0),  # its body counts for itself
  ],
)
def test_what_passes_between_the_chips_memory_and_its_core(name, moved):
  computations = parse(PROGRAM)
  assert traffic(computations["main"][name], computations["main"], computations) == moved


def test_a_gather_beside_products_is_read_and_written_once_for_its_chain():
  inner = parse(PROGRAM)["gathering"]
  assert chained(inner["gathered"], inner) == ("2", 16 * 128 * 2 + 64 * 128 * 2)
  assert chained(inner["x"], inner) is None
