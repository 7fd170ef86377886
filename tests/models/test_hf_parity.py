"""Import, forward pass and export against torch and transformers, on random tiny models saved by transformers.

Every parameter is random, norms and biases too, and large enough that the probabilities are far from uniform.
"""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.models.hf_config import to_hf
from amopo_jax.models.hf_export import save_model
from amopo_jax.models.hf_import import load_config, load_params
from amopo_jax.models.hf_names import leaves, set_leaf
from amopo_jax.models.score import make_score_fn
from amopo_jax.types import NO_SLOT, InputError, PackedRows

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
  "vocab_size": 61,
  "hidden_size": 32,
  "intermediate_size": 48,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "max_position_embeddings": 64,
}
LLAMA3 = {
  "rope_type": "llama3",
  "rope_theta": 500000.0,
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 16,
}
CASES = {
  "qwen2_tied": ("Qwen2", {"tie_word_embeddings": True}),
  "qwen2_untied": ("Qwen2", {"rms_norm_eps": 1e-3}),
  "qwen2_window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
  "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
  "llama_llama3": ("Llama", {"rope_parameters": LLAMA3}),
  "llama_linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
  "mistral": ("Mistral", {"sliding_window": None, "num_key_value_heads": 1}),
  "mistral_window": ("Mistral", {"sliding_window": 5, "head_dim": 12}),
}

HEADER, TAILS, RESPONSES = [5, 7, 11], ([13, 17, 19], [23, 29, 31, 37, 41]), ([43, 47, 53, 2], [59, 2])
"""One pair in two contexts: the prompts share their header; the responses end in the token 2."""
PROMPTS = [HEADER + tail for tail in TAILS]


def make_torch(case):
  family, changes = CASES[case]
  config = getattr(transformers, f"{family}Config")(**SIZES | changes)
  model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
  generator = torch.Generator().manual_seed(len(case))
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      center = 1.0 if "norm" in name else 0.0
      parameter.copy_(center + 0.3 * torch.randn(parameter.shape, generator=generator))
  return model


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
  """The torch model, and the directory into which transformers saved it."""
  model = make_torch(request.param)
  directory = tmp_path_factory.mktemp(request.param)
  model.save_pretrained(directory)
  return model, directory


def torch_moments(model) -> np.ndarray:
  """length, sum_logp, sum_p, sum_p2 [4 K P], one sequence at a time."""
  moments = np.zeros((4, 2, 2))
  for k, prompt in enumerate(PROMPTS):
    for p, response in enumerate(RESPONSES):
      ids = torch.tensor([prompt + response])
      with torch.no_grad():
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
      logps = torch.log_softmax(logits, -1)[range(len(response)), response].numpy()
      moments[:, k, p] = len(response), logps.sum(), np.exp(logps).sum(), np.exp(2 * logps).sum()
  return moments


class Row:
  """A row built token by token, each with the index of the token it follows."""

  def __init__(self):
    self.tokens, self.parents, self.slots = [], [], []

  def add(self, tokens, after=None, slot=NO_SLOT):
    for token in tokens:
      self.tokens.append(token)
      self.parents.append(after)
      self.slots.append(slot)
      after = len(self.tokens) - 1
    return after

  def packed(self, length, *, first_slot):
    size = len(self.tokens)
    positions, ends = np.zeros(length, int), np.zeros(length, int)
    for i, parent in enumerate(self.parents):
      positions[i] = 0 if parent is None else positions[parent] + 1
      ancestor = i
      while ancestor is not None:
        ends[ancestor] = i + 1
        ancestor = self.parents[ancestor]
    pad = (0, length - size)
    return [
      np.pad(self.tokens, pad),
      positions,
      ends,
      np.pad([parent or 0 for parent in self.parents], pad),
      np.pad([slot if slot == NO_SLOT else first_slot + slot for slot in self.slots], pad, constant_values=NO_SLOT),
    ]


def unshared_rows():
  """A row for each sequence."""
  rows = [Row() for _ in range(4)]
  for k, prompt in enumerate(PROMPTS):
    for p, response in enumerate(RESPONSES):
      row = rows[2 * k + p]
      row.add(response, row.add(prompt), slot=2 * k + p)
  return rows


def packed_row():
  """The four sequences one after the other."""
  row = Row()
  for k, prompt in enumerate(PROMPTS):
    for p, response in enumerate(RESPONSES):
      row.add(response, row.add(prompt), slot=2 * k + p)
  return [row]


def trie_row():
  """The header once, each tail once, the responses as leaves."""
  row = Row()
  header = row.add(HEADER)
  for k, tail in enumerate(TAILS):
    prompt = row.add(tail, header)
    for p, response in enumerate(RESPONSES):
      row.add(response, prompt, slot=2 * k + p)
  return [row]


LAYOUTS = {"unshared": unshared_rows, "packed": packed_row, "trie": trie_row}


def all_layouts() -> PackedRows:
  """The same pair three times, once in each layout."""
  built = [(number, row) for number, build in enumerate(LAYOUTS.values()) for row in build()]
  length = max(len(row.tokens) for _, row in built) + 3  # and some padding
  packed = [row.packed(length, first_slot=number * 4) for number, row in built]
  return PackedRows(*(jnp.asarray(np.stack(columns), jnp.int32) for columns in zip(*packed, strict=True)))


@cache
def compiled_score(config):
  score = make_score_fn(
    config, num_contexts=2, compute_dtype=jnp.float32, remat="none", attention_chunk=16, head_chunk=16
  )
  return jax.jit(score, static_argnums=2)


def check_moments(params, config, model):
  """In every layout, our moments are those of torch: mean log-probability 1e-4 relative, mean p 1e-5 absolute."""
  expected = torch_moments(model)
  length = expected[0]
  assert np.ptp(expected[1] / length) > 0.1  # nats: the responses differ, or this could not fail
  moments = compiled_score(config)(params, all_layouts(), len(LAYOUTS))
  for number, layout in enumerate(LAYOUTS):
    found = np.stack([np.asarray(moment[number]) for moment in moments])
    np.testing.assert_array_equal(found[0], length, err_msg=layout)
    np.testing.assert_allclose(found[1] / length, expected[1] / length, rtol=1e-4, err_msg=layout)
    for i in (2, 3):  # the absolute bound is the promise, the relative one sees errors of small probabilities
      np.testing.assert_allclose(found[i] / length, expected[i] / length, rtol=0, atol=1e-5, err_msg=layout)
      np.testing.assert_allclose(found[i] / length, expected[i] / length, rtol=5e-4, err_msg=layout)


def test_moments_are_those_of_torch(saved):
  model, directory = saved
  config, _ = load_config(directory)
  check_moments(load_params(directory, config, dtype=jnp.float32), config, model)


def test_transformers_loads_the_export_with_equal_logits(saved, tmp_path):
  model, directory = saved
  config, fields = load_config(directory)
  params = load_params(directory, config, dtype=jnp.float32)
  save_model(params, config, fields, tmp_path / "out", dtype=jnp.float32, max_shard_bytes=20_000)
  again, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
  assert not report["missing_keys"]
  assert not report["unexpected_keys"]
  assert not report["mismatched_keys"]
  ids = torch.tensor([PROMPTS[1] + RESPONSES[0]])
  with torch.no_grad():
    assert torch.equal(again.eval()(input_ids=ids).logits, model(input_ids=ids).logits)
  assert again.config.to_dict() == model.config.to_dict() | {"_name_or_path": again.config._name_or_path}


def test_a_config_written_from_scratch_means_the_same_to_transformers(saved, tmp_path):
  """As a model trained from nothing is exported: in the spelling of transformers 4, without a file to copy."""
  _, directory = saved
  config, _ = load_config(directory)
  params: dict = {}
  rng = np.random.default_rng(1)
  for leaf in leaves(config):
    center = 1.0 if leaf.path[-1] == "scale" else 0.0
    set_leaf(params, leaf.path, rng.normal(center, 0.3, leaf.shape).astype(np.float32))
  fields = to_hf(config, eos_token_id=2)
  save_model(params, config, fields, tmp_path / "out", dtype=jnp.float32)
  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
  assert model.config.eos_token_id == 2
  assert model.config.bos_token_id is None
  check_moments(params, config, model)


def test_bfloat16_checkpoint(tmp_path):
  model = make_torch("qwen2_tied").to(torch.bfloat16)
  model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
  assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
  assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
  config, _ = load_config(tmp_path / "model")
  params = load_params(tmp_path / "model", config, dtype=jnp.float32)
  # Not model.float(): that would keep the rotary frequencies as bfloat16 rounded them.
  wide = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
  check_moments(params, config, wide)


def test_what_transformers_saves_for_another_architecture_is_refused(tmp_path):
  """Qwen2 with a window in some of its layers: transformers computes it, this decoder does not."""
  config = transformers.Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=4, max_window_layers=1)
  transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path)
  with pytest.raises(InputError, match="cannot be mixed"):
    load_config(tmp_path)
