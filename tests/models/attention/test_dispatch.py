import dataclasses
import logging
import re

import jax
import jax.numpy as jnp
import pytest

from amopo_jax.models.attention import dispatch
from amopo_jax.models.attention.dispatch import BACKENDS, choose_attention
from amopo_jax.models.attention.reference import attention
from amopo_jax.models.attention.xla_blocks import xla_blocks
from amopo_jax.models.config import ModelConfig
from amopo_jax.types import InputError

CONFIG = ModelConfig(
  architecture="Qwen2ForCausalLM",
  vocab_size=7,
  width=256,
  num_layers=1,
  num_heads=4,
  num_kv_heads=2,
  head_dim=64,
  mlp_width=12,
)
HERE = {"tensor": 1, "compute_dtype": jnp.bfloat16}


@pytest.mark.parametrize("platform, name", [("tpu", "pallas_tpu"), ("gpu", "pallas_triton"), ("cpu", "xla_blocks")])
def test_auto_goes_by_the_kind_of_device(platform, name, caplog):
  choice = choose_attention("auto", CONFIG, platform=platform, **HERE)
  assert choice.name == name
  assert caplog.records == []


@pytest.mark.parametrize("platform", ["tpu", "gpu", "cpu"])
def test_xla_is_the_reference_anywhere(platform):
  assert choose_attention("xla", CONFIG, platform=platform, **HERE) == ("xla", attention)


REFUSED = [
  ("tpu", {"num_kv_heads": 1}, {"tensor": 4}, r"config\.mesh\.tensor=4 does not divide 1 key heads"),
  ("tpu", {"num_heads": 128, "num_kv_heads": 1, "head_dim": 256}, {}, "128 query heads of size 256 per key head need"),
  ("gpu", {"head_dim": 160}, {}, "heads of size 256 are larger than 128"),
  ("cpu", {"num_kv_heads": 1}, {"tensor": 2}, r"config\.mesh\.tensor=2 does not divide 1 key heads"),
]


@pytest.mark.parametrize("platform, shape, changes, reason", REFUSED)
def test_auto_falls_back_with_one_line_that_says_why(platform, shape, changes, reason, caplog):
  config = dataclasses.replace(CONFIG, **shape)
  with caplog.at_level(logging.WARNING):
    choice = choose_attention("auto", config, platform=platform, **HERE | changes)
  assert choice == ("xla", attention)
  (record,) = caplog.records
  assert record.getMessage().startswith("attention: xla, which is slower, instead of ")
  assert re.search(reason, record.getMessage())


@pytest.mark.parametrize("platform, shape, changes, reason", REFUSED)
def test_by_name_it_is_an_error_that_says_why(platform, shape, changes, reason):
  name = {"tpu": "pallas_tpu", "gpu": "pallas_triton", "cpu": "xla_blocks"}[platform]
  with pytest.raises(InputError, match=rf"config\.model\.attention: {name} cannot be: {reason}.*; choose auto or xla"):
    choose_attention(name, dataclasses.replace(CONFIG, **shape), platform=platform, **HERE | changes)


def test_a_kernel_for_other_devices_is_refused():
  with pytest.raises(InputError, match="it is for devices of kind tpu, here they are cpu; choose auto or xla"):
    choose_attention("pallas_tpu", CONFIG, platform="cpu", **HERE)


@pytest.mark.parametrize("name", ["auto", "xla", "xla_blocks"])
def test_queries_are_split_only_where_the_heads_divide(name):
  choose = lambda **split: choose_attention(name, CONFIG, platform="cpu", compute_dtype=jnp.float32, **split)
  assert choose(tensor=2, context=4).name == choose(tensor=2).name
  with pytest.raises(InputError, match=r"config\.mesh\.context=2 needs key heads that config\.mesh\.tensor=4 divides"):
    choose(tensor=4, context=2)


def test_every_backend_has_a_name():
  assert ("auto", "xla", *dispatch.FUSED) == BACKENDS


def _refuse(*_):
  raise RuntimeError("no such instruction\nand more")


def _double(operands, blocks):
  output, lse = xla_blocks().forward(operands, blocks)
  return 2 * output, lse


def _given(change):
  """The loops on other operands."""
  kernel = xla_blocks()
  return kernel._replace(
    forward=lambda x, blocks: kernel.forward(change(x), blocks),
    backward=lambda x, pull, blocks: kernel.backward(change(x), pull, blocks),
  )


def _causal(x):
  return x._replace(reach=x.reach._replace(end=jnp.full_like(x.reach.end, x.reach.end.shape[1])))


def _unwindowed(x):
  return x._replace(window=None)


_OFF = r"in its trial it was [\d.e+-]+ of the largest gradient off"

TRIALS = [
  (xla_blocks(), None),
  (xla_blocks()._replace(forward=_refuse), "its trial failed: no such instruction$"),
  (xla_blocks()._replace(backward=_refuse), "its trial failed: no such instruction$"),
  (xla_blocks()._replace(forward=_double), _OFF),
  (_given(_causal), _OFF),
  (_given(_unwindowed), _OFF),
]


@pytest.mark.parametrize("kernel, reason", TRIALS, ids=["good", "forward", "backward", "wrong", "no tree", "no window"])
def test_an_unproven_kernel_has_to_pass_a_trial_on_the_device(kernel, reason, caplog, monkeypatch):
  monkeypatch.setattr(dispatch, "FUSED", {"new": dispatch.Fused(kernel, "cpu", is_unproven=True)})
  config = dataclasses.replace(CONFIG, sliding_window=4096)
  choose = lambda name: choose_attention(name, config, platform="cpu", device=jax.devices()[0], **HERE)
  if reason is None:
    assert choose("auto").name == choose("new").name == "new"
    return
  with caplog.at_level(logging.WARNING):
    assert choose("auto") == ("xla", attention)
  assert re.search(reason, caplog.records[0].getMessage())
  with pytest.raises(InputError, match="new cannot be: "):
    choose("new")


def test_only_the_kernel_that_was_never_measured_is_tried():
  assert [name for name, fused in dispatch.FUSED.items() if fused.is_unproven] == ["pallas_triton"]
