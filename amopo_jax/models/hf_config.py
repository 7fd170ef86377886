"""The decoder's hyper-parameters out of a Hugging Face `config.json`, and back.

Reading is strict. A key is either read here, or known to change nothing, or known and at the one value this
decoder computes with; everything else is refused by name. A model that loads is the model its author meant.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.hf_fields import HARMLESS, ONLY_VALUE, Fields, flag, integer_from, number_above
from amopo_jax.models.hf_rope import read_rope, write_rope
from amopo_jax.models.hf_window import (
  read_mistral_window,
  read_no_window,
  read_qwen_window,
  write_mistral_window,
  write_no_window,
  write_qwen_window,
)
from amopo_jax.types import InputError

_SIZES = (
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "num_hidden_layers",
  "num_attention_heads",
  "max_position_embeddings",
)
_REQUIRED = ("architectures", "rms_norm_eps", *_SIZES)

_COMMON_DEFAULTS: Fields = {
  "num_key_value_heads": None,  # as many as query heads
  "head_dim": None,  # hidden_size / num_attention_heads
  "layer_types": None,  # all of the kind that the window's keys say
  "initializer_range": 0.02,
  "tie_word_embeddings": False,
  "rope_theta": None,
  "rope_scaling": None,
  "rope_parameters": None,
}
_QWEN_DEFAULTS: Fields = {
  "num_key_value_heads": 32,
  "use_sliding_window": False,
  "sliding_window": 4096,
  "max_window_layers": 28,
}


@dataclass(frozen=True, kw_only=True)
class Family:
  """What distinguishes one Hugging Face architecture from the next.

  Attributes:
    model_type: the value of `model_type`.
    read_window: the sliding window of the completed fields.
    write_window: the fields for a sliding window.
    defaults: the optional keys this architecture reads, each with what transformers takes if it is absent.
    qkv_bias: q, k and v have a bias.
    qk_norm: q and k are normalised per head.
  """

  model_type: str
  read_window: Callable[[Fields, str], int | None]
  write_window: Callable[[int | None], Fields]
  defaults: Fields = field(default_factory=dict)
  qkv_bias: bool = False
  qk_norm: bool = False


def from_hf(config: dict[str, Any], origin: str) -> ModelConfig:
  """Reads the content of a `config.json` of Qwen2, Qwen2.5, Qwen3, Llama 3.x or Mistral.

  The spellings of transformers 4 and 5 are understood. Absent optional keys take the architecture's own
  default in transformers. An unknown key that is null is let pass: null switches off.

  Args:
    config: parsed JSON.
    origin: the file, for the message.

  Returns:
    The hyper-parameters.

  Raises:
    InputError: an architecture other than these; a missing key; keys that are unknown or would change the
      mathematics (all of them are named); a value out of range.
  """
  family = _family(config, origin)
  _refuse_unknown(config, family, origin)
  fields = _COMMON_DEFAULTS | family.defaults | config
  theta, scaling = read_rope(fields, origin)
  return ModelConfig(
    architecture=config["architectures"][0],
    vocab_size=integer_from(fields, "vocab_size", 1, origin),
    width=integer_from(fields, "hidden_size", 1, origin),
    num_layers=integer_from(fields, "num_hidden_layers", 1, origin),
    mlp_width=integer_from(fields, "intermediate_size", 1, origin),
    max_positions=integer_from(fields, "max_position_embeddings", 1, origin),
    norm_eps=number_above(fields, "rms_norm_eps", 0.0, origin),
    initializer_range=number_above(fields, "initializer_range", 0.0, origin),
    rope_theta=theta,
    rope_scaling=scaling,
    qkv_bias=family.qkv_bias,
    qk_norm=family.qk_norm,
    tie_embeddings=flag(fields, "tie_word_embeddings", origin),
    sliding_window=family.read_window(fields, origin),
    **_heads(fields, origin),
  )


def to_hf(
  config: ModelConfig,
  *,
  bos_token_id: int | None = None,
  eos_token_id: int | None = None,
  pad_token_id: int | None = None,
) -> dict[str, Any]:
  """Writes the content of a `config.json`, for a model that did not come from one.

  The spelling is that of transformers 4, which transformers 5 and vLLM read as well. Token indices are always
  written, as null where there is none, because an absent one would mean the architecture's own default.

  Args:
    config: the hyper-parameters.
    bos_token_id: begins a sequence, or None.
    eos_token_id: ends a turn: generation stops here.
    pad_token_id: fills batches, or None.

  Returns:
    What `from_hf` reads back as the same `config`.

  Raises:
    InputError: the architecture cannot express these hyper-parameters, such as Llama with a sliding window.
  """
  origin = f"model of architecture {config.architecture}"
  family = _family({"architectures": [config.architecture]}, origin)
  fields = {
    "architectures": [config.architecture],
    "model_type": family.model_type,
    "vocab_size": config.vocab_size,
    "hidden_size": config.width,
    "intermediate_size": config.mlp_width,
    "num_hidden_layers": config.num_layers,
    "num_attention_heads": config.num_heads,
    "num_key_value_heads": config.num_kv_heads,
    "head_dim": config.head_dim,
    "hidden_act": "silu",
    "rms_norm_eps": config.norm_eps,
    "max_position_embeddings": config.max_positions,
    "initializer_range": config.initializer_range,
    "tie_word_embeddings": config.tie_embeddings,
    **write_rope(config.rope_theta, config.rope_scaling),
    **family.write_window(config.sliding_window),
    "bos_token_id": bos_token_id,
    "eos_token_id": eos_token_id,
    "pad_token_id": pad_token_id,
  }
  if from_hf(fields, origin) != config:
    raise InputError(f"{origin}: it has no qkv_bias, qk_norm or sliding_window like these; export it as another one")
  return fields


def _family(config: Mapping[str, Any], origin: str) -> Family:
  """The one known architecture that a config names."""
  names = config.get("architectures")
  if names not in [[name] for name in FAMILIES]:
    raise InputError(f"{origin}: architectures is {names}; supported is one of {', '.join(FAMILIES)}")
  family = FAMILIES[names[0]]
  if "model_type" in config and config["model_type"] != family.model_type:
    raise InputError(f"{origin}: model_type is {config['model_type']!r}, but {names[0]} has {family.model_type!r}")
  return family


def _refuse_unknown(config: Fields, family: Family, origin: str) -> None:
  """Names every key that is missing, that is unknown, or that asks for mathematics that are not here."""
  only = ONLY_VALUE | {"attention_bias": family.qkv_bias}
  known = HARMLESS | set(_REQUIRED) | set(_COMMON_DEFAULTS) | set(family.defaults)
  missing = [key for key in _REQUIRED if key not in config]
  changed = [key for key in config if key in only and config[key] is not None and config[key] != only[key]]
  unknown = [key for key in config if key not in known | set(only) and config[key] is not None]
  if missing:
    raise InputError(f"{origin}: {', '.join(missing)} missing; take the file from the model's author")
  problems = [f"{key}={json.dumps(config[key])} (only {json.dumps(only[key])} is supported)" for key in changed]
  problems += [f"{key}={json.dumps(config[key])} (unknown)" for key in unknown]
  if problems:
    raise InputError(
      f"{origin}: may change the mathematics: {', '.join(problems)}; "
      "use another model, or delete a key that you know to change nothing"
    )


def _heads(fields: Fields, origin: str) -> dict[str, int]:
  """Query heads, key and value heads, and their size."""
  num_heads = integer_from(fields, "num_attention_heads", 1, origin)
  num_kv_heads, head_dim = num_heads, fields["hidden_size"] // num_heads
  if fields["num_key_value_heads"] is not None:
    num_kv_heads = integer_from(fields, "num_key_value_heads", 1, origin)
  if fields["head_dim"] is not None:
    head_dim = integer_from(fields, "head_dim", 1, origin)
  elif fields["hidden_size"] % num_heads:
    raise InputError(f"{origin}: hidden_size is not a multiple of num_attention_heads {num_heads}; give head_dim")
  if num_heads % num_kv_heads:
    raise InputError(
      f"{origin}: num_attention_heads {num_heads} is not a multiple of num_key_value_heads {num_kv_heads}; "
      "correct one of them"
    )
  if head_dim % 2:
    raise InputError(f"{origin}: head_dim {head_dim} is odd; rotary positions need an even one")
  return {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim}


FAMILIES: dict[str, Family] = {
  "Qwen2ForCausalLM": Family(
    model_type="qwen2",
    qkv_bias=True,
    read_window=read_qwen_window,
    write_window=write_qwen_window,
    defaults=_QWEN_DEFAULTS,
  ),
  "Qwen3ForCausalLM": Family(
    model_type="qwen3",
    qk_norm=True,
    read_window=read_qwen_window,
    write_window=write_qwen_window,
    defaults=_QWEN_DEFAULTS | {"head_dim": 128},
  ),
  "LlamaForCausalLM": Family(model_type="llama", read_window=read_no_window, write_window=write_no_window),
  "MistralForCausalLM": Family(
    model_type="mistral",
    read_window=read_mistral_window,
    write_window=write_mistral_window,
    defaults={"num_key_value_heads": 8, "sliding_window": 4096},
  ),
}
"""What this decoder computes, by the name in `architectures`."""
