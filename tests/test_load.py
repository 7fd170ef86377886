"""Policies whose adapters are apart from their base: loaded merged, whatever the base is and wherever it lies."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from rich.console import Console

from amopo_jax import build
from amopo_jax.checkpoint import Checkpoints
from amopo_jax.export import export
from amopo_jax.export_adapters import export_adapters
from amopo_jax.load import load_adapters, load_base, load_policy
from amopo_jax.lora import split_params
from amopo_jax.mesh import make_mesh
from amopo_jax.models.transformer import abstract_params, hidden_states
from amopo_jax.policy import find_policy, has_adapters, read_run
from amopo_jax.score import score
from amopo_jax.train import train
from amopo_jax.types import InputError, PackedRows

ROWS = PackedRows(
  tokens=jnp.arange(8)[None],
  positions=jnp.arange(8)[None],
  subtree_end=jnp.full((1, 8), 8),
  parent=jnp.maximum(jnp.arange(8) - 1, 0)[None],
  slot=jnp.zeros((1, 8), int),
)


@pytest.fixture(scope="module")
def pretrained(trained, tmp_path_factory):
  """A Hugging Face directory: the policy of a complete run."""
  out = tmp_path_factory.mktemp("pretrained") / "model"
  export(str(trained[0]), str(out))
  return out


@pytest.fixture(scope="module")
def adapted(make_spec, pretrained, tmp_path_factory):
  """Spec and workdir of a run with adapters beside that model's kernels in 4 bits."""
  spec = make_spec(lora__rank=4, lora__base_dtype="nf4", train__steps=3, model__path=str(pretrained), model__arch={})
  workdir = tmp_path_factory.mktemp("lora") / "run"
  train(spec, str(workdir), Console(file=io.StringIO(), width=200))
  return spec, workdir


def on_one_device(config):
  here = SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda _: here, abstract_params(config, jnp.float32))


def load(path):
  source = find_policy(str(path), {})
  return source, load_policy(source, dtype=jnp.float32, shardings=on_one_device(source.config))


def test_a_workdir_s_policy_comes_in_the_type_that_is_wanted(trained):
  source, params = load(trained[0])
  halves = load_policy(source, dtype=jnp.bfloat16, shardings=on_one_device(source.config))
  for half, whole in zip(jax.tree.leaves(halves), jax.tree.leaves(params), strict=True):
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, whole.astype(jnp.bfloat16))


def compute(params, config):
  return hidden_states(params, config, ROWS, compute_dtype=jnp.float32, remat="none", attention_chunk=8)


def test_the_merged_policy_computes_what_base_and_adapters_do(adapted):
  spec, workdir = adapted
  source, merged = load(workdir)
  split = split_params(spec.lora, source.config, jnp.float32, on_one_device(source.config))
  origin = find_policy(spec.model.path, {})
  base = load_base(origin, split, spec.lora, dtype=jnp.float32, placed=on_one_device(source.config), seed=0)
  together = split.join(load_adapters(source, spec, split.placed), base.params)
  ours = compute(merged, source.config)
  np.testing.assert_allclose(ours, compute(together, source.config), atol=1e-5)
  assert np.abs(ours - compute(load(spec.model.path)[1], source.config)).max() > 1e-3


def test_a_merged_policy_lies_on_any_mesh(adapted):
  source, merged = load(adapted[1])
  mesh = make_mesh(data=1, fsdp=8, tensor=1)
  placed = build.param_shardings(adapted[0], abstract_params(source.config, jnp.float32), mesh)
  split = load_policy(source, dtype=jnp.float32, shardings=placed)
  assert split["layers"]["attn"]["q"]["kernel"].sharding == placed["layers"]["attn"]["q"]["kernel"]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, split)


def test_transformers_gives_the_logits_of_the_merged_export(adapted, tmp_path):
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  export(str(adapted[1]), str(tmp_path / "model"))
  source, merged = load(adapted[1])
  ours = compute(merged, source.config) @ merged["embed"]["weight"].T
  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
  with torch.no_grad():
    theirs = model(torch.arange(8)[None]).logits.numpy()
  np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_adapters_are_exported_alone_with_the_name_of_their_base(adapted, tmp_path):
  assert export_adapters(str(adapted[1]), str(tmp_path / "peft")) == 3
  assert sorted(file.name for file in (tmp_path / "peft").iterdir()) == [
    "adapter_config.json",
    "adapter_model.safetensors",
  ]
  config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
  assert config["base_model_name_or_path"] == adapted[0].model.path


def test_a_run_without_adapters_has_none_to_export(trained, tmp_path):
  assert not has_adapters(str(trained[0]))
  with pytest.raises(InputError, match="trained the whole model, and has no adapters; export it without --adapters"):
    export_adapters(str(trained[0]), str(tmp_path / "peft"))


@pytest.mark.slow
def test_it_is_scored_and_is_the_base_of_a_next_stage(adapted, make_spec, world, tmp_path, console):
  spec = make_spec(model__path=str(adapted[1]), model__arch={})
  assert score(spec, str(tmp_path / "scores.jsonl")).num_lines > 0
  stage = make_spec(lora__rank=2, lora__base_dtype="int8", train__steps=1, model__path=str(adapted[1]), model__arch={})
  train(stage, str(tmp_path / "next"), console)
  assert Checkpoints(str(tmp_path / "next")).latest_step() == 1
  assert load(tmp_path / "next")[0].config == load(adapted[1])[0].config


def test_another_base_is_refused(adapted, trained, pretrained, tmp_path):
  source = find_policy(str(adapted[1]), {})
  file, moved = pretrained / "model.safetensors", tmp_path / "model.safetensors"
  content = bytearray(file.read_bytes())
  file.rename(moved)
  try:
    content[-1] ^= 1  # a bit of the last tensor
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"its adapters belong to another base than .* has now"):
      load(adapted[1])
    file.unlink()
    with pytest.raises(InputError, match=r"holds adapters only, and their base cannot be loaded"):
      load(adapted[1])
  finally:
    moved.rename(file)
  assert read_run(str(adapted[1])).spec.model.path == str(pretrained)
  assert source.step == 3
