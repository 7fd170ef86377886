"""The keys of a Hugging Face `config.json`: which are known, and how one is read or refused in one line."""

import math
from typing import Any

from amopo_jax.types import InputError

Fields = dict[str, Any]
"""The content of a config.json, or that content completed with defaults."""


ONLY_VALUE: Fields = {
  "hidden_act": "silu",
  "attention_bias": False,
  "mlp_bias": False,
  "partial_rotary_factor": 1.0,
  "rope_interleaved": False,
  "use_mrope": False,
  "is_encoder_decoder": False,
  "add_cross_attention": False,
  "logit_scale": 1.0,
  "logits_scaling": 1.0,
  "pruned_heads": {},
}
"""Keys that would change the mathematics, with the value at which they do not."""

HARMLESS = frozenset(
  {
    # who and what
    "_name_or_path",
    "architectures",
    "model_type",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "unsloth_fixed",
    "unsloth_version",
    "is_llama_config",
    "transformers.js_config",
    "tokenizer_class",
    "_commit_hash",
    # how it is run, not what is computed
    "use_cache",
    "pretraining_tp",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "return_dict_in_generate",
    "torchscript",
    "use_bfloat16",
    "chunk_size_feed_forward",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    # training: nothing is dropped here
    "attention_dropout",
    "hidden_dropout",
    # token indices and generation
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "prefix",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "output_scores",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    # heads this project does not use
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "finetuning_task",
    "task_specific_params",
    "is_decoder",
    "cross_attention_hidden_size",
    "tie_encoder_decoder",
    "tf_legacy_loss",
  }
)
"""Keys that change no probability."""


def integer_from(fields: Fields, key: str, low: int, origin: str) -> int:
  """A whole number ≥ low; `true` is none."""
  value = fields[key]
  if not isinstance(value, int) or isinstance(value, bool) or value < low:
    raise InputError(f"{origin}: {key} is {value!r}; it must be a whole number ≥ {low}")
  return value


def number_above(fields: Fields, key: str, low: float, origin: str) -> float:
  """A finite number > low."""
  value = fields[key]
  is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
  if not is_number or value <= low:
    raise InputError(f"{origin}: {key} is {value!r}; it must be a number > {low:g}")
  return float(value)


def flag(fields: Fields, key: str, origin: str) -> bool:
  """true or false."""
  value = fields[key]
  if not isinstance(value, bool):
    raise InputError(f"{origin}: {key} is {value!r}; it must be true or false")
  return value
