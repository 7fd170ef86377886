import dataclasses

import pytest

from amopo_jax.models.config import ModelConfig, RopeScaling
from amopo_jax.models.hf_config import FAMILIES, from_hf, to_hf
from amopo_jax.types import InputError


def test_a_transformers_4_file_is_read(hf_fields):
  assert from_hf(hf_fields, "config.json") == ModelConfig(
    architecture="Qwen2ForCausalLM",
    vocab_size=40,
    width=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    mlp_width=24,
    norm_eps=1e-6,
    rope_theta=10000.0,
    rope_scaling=None,
    qkv_bias=True,
    qk_norm=False,
    tie_embeddings=False,
    sliding_window=None,
    max_positions=64,
    initializer_range=0.02,
  )


def test_the_spelling_of_transformers_5_means_the_same(hf_fields):
  new = {key: value for key, value in hf_fields.items() if key not in ("rope_theta", "torch_dtype")}
  new |= {
    "dtype": "float32",
    "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    "sliding_window": None,
    "layer_types": ["full_attention", "full_attention"],
    "pad_token_id": None,
  }
  assert from_hf(new, "new") == from_hf(hf_fields, "old")


def test_absent_keys_take_the_default_of_the_architecture(hf_fields):
  optional = ("num_key_value_heads", "tie_word_embeddings", "rope_theta", "initializer_range", "sliding_window")
  bare = {key: value for key, value in hf_fields.items() if key not in optional}
  llama = bare | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
  del llama["use_sliding_window"], llama["max_window_layers"]
  config = from_hf(llama, "config.json")
  assert (config.num_kv_heads, config.tie_embeddings, config.rope_theta) == (4, False, 10000.0)
  qwen3 = from_hf(bare | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "num_key_value_heads": 2}, "x")
  assert (qwen3.head_dim, qwen3.qk_norm, qwen3.qkv_bias) == (128, True, False)


@pytest.mark.parametrize("architectures", [["GPT2LMHeadModel"], [], None, "Qwen2ForCausalLM", [["Qwen2"]]])
def test_an_unknown_architecture_is_refused_and_the_known_are_listed(hf_fields, architectures):
  with pytest.raises(InputError, match=r"^place: architectures is .*Qwen2ForCausalLM.*MistralForCausalLM"):
    from_hf(hf_fields | {"architectures": architectures}, "place")


def test_the_wrong_model_type_is_refused(hf_fields):
  with pytest.raises(InputError, match="model_type is 'qwen2_moe'"):
    from_hf(hf_fields | {"model_type": "qwen2_moe"}, "place")


@pytest.mark.parametrize("key", ["architectures", "rms_norm_eps", "vocab_size", "max_position_embeddings"])
def test_a_missing_key_is_named(hf_fields, key):
  del hf_fields[key]
  with pytest.raises(InputError, match=key):
    from_hf(hf_fields, "place")


@pytest.mark.parametrize(
  "key, value",
  [
    ("hidden_act", "gelu"),
    ("attention_bias", False),  # Qwen2 has it
    ("mlp_bias", True),
    ("partial_rotary_factor", 0.5),
    ("final_logit_softcapping", 30.0),
    ("attn_logit_softcapping", 50.0),
    ("logit_scale", 0.0625),
    ("quantization_config", {"quant_method": "gptq"}),
    ("num_experts", 8),
    ("auto_map", {"AutoModelForCausalLM": "modeling.Other"}),
    ("something_new", False),
    ("use_mrope", True),
    ("per_layer_config", {"0": {"intermediate_size": 8}}),
    ("rope_scaling", {"type": "yarn", "factor": 4.0}),
    ("max_window_layers", "all"),
    ("tie_word_embeddings", 1),
    ("num_hidden_layers", 0),
    ("hidden_size", 17),
    ("head_dim", 5),
    ("num_key_value_heads", 3),
    ("rms_norm_eps", 0.0),
  ],
)
def test_what_would_change_the_mathematics_is_refused_by_name(hf_fields, key, value):
  hf_fields |= {"use_sliding_window": True, "max_window_layers": 0, key: value}
  with pytest.raises(InputError) as caught:
    from_hf(hf_fields, "place")
  message = str(caught.value)
  assert message.startswith("place: ")
  assert "\n" not in message
  assert {"rope_scaling": "yarn"}.get(key, key) in message


def test_all_offending_keys_are_in_the_one_line(hf_fields):
  with pytest.raises(InputError, match=r'hidden_act="gelu" \(only "silu" is supported\), new_key=3 \(unknown\)'):
    from_hf(hf_fields | {"hidden_act": "gelu", "new_key": 3}, "place")


def test_attention_bias_is_refused_where_there_is_no_place_for_it(hf_fields):
  llama = hf_fields | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": True}
  for key in ("use_sliding_window", "max_window_layers", "sliding_window"):
    del llama[key]
  with pytest.raises(InputError, match="attention_bias=true"):
    from_hf(llama, "place")
  assert not from_hf(llama | {"attention_bias": False}, "place").qkv_bias


def test_harmless_and_null_keys_are_let_pass(hf_fields):
  config = from_hf(hf_fields, "place")
  extra = {"attention_dropout": 0.1, "pretraining_tp": 2, "_name_or_path": "x", "quantization_config": None}
  assert from_hf(hf_fields | extra, "place") == config


def _config(architecture: str, **changes) -> ModelConfig:
  family = FAMILIES[architecture]
  base = ModelConfig(
    architecture=architecture,
    vocab_size=40,
    width=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_width=24,
    qkv_bias=family.qkv_bias,
    qk_norm=family.qk_norm,
    rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_max_positions=32),
    rope_theta=5e5,
    tie_embeddings=True,
  )
  return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_what_is_written_reads_back(architecture):
  config = _config(architecture)
  assert from_hf(to_hf(config), "place") == config
  if architecture != "LlamaForCausalLM":
    config = _config(architecture, sliding_window=8)
    assert from_hf(to_hf(config), "place") == config


def test_token_indices_are_always_written():
  fields = to_hf(_config("LlamaForCausalLM"), eos_token_id=7)
  assert (fields["bos_token_id"], fields["eos_token_id"], fields["pad_token_id"]) == (None, 7, None)


@pytest.mark.parametrize("changes", [{"sliding_window": 8}, {"qkv_bias": True}, {"qk_norm": True}])
def test_llama_cannot_express_what_it_does_not_have(changes):
  with pytest.raises(InputError, match="LlamaForCausalLM: "):
    to_hf(_config("LlamaForCausalLM", **changes))
