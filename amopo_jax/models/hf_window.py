"""Sliding windows as the Hugging Face architectures spell them: one window for all layers, or none.

A window that holds in some layers only is refused: the decoder scans one layer over all parameters.
"""

from amopo_jax.models.hf_fields import Fields, flag, integer_from
from amopo_jax.types import InputError

FULL, SLIDING = "full_attention", "sliding_attention"
"""The kinds of layer in `layer_types`."""


def read_qwen_window(fields: Fields, origin: str) -> int | None:
  """Qwen2, Qwen3: `use_sliding_window`, from layer `max_window_layers` on or where `layer_types` says so."""
  if not flag(fields, "use_sliding_window", origin) or fields["sliding_window"] is None:
    return _uniform(fields, None, origin)
  window = integer_from(fields, "sliding_window", 1, origin)
  first = integer_from(fields, "max_window_layers", 0, origin)
  layers = range(fields["num_hidden_layers"])
  if fields["layer_types"] is None:
    fields = fields | {"layer_types": [SLIDING if layer >= first else FULL for layer in layers]}
  return _uniform(fields, None if fields["layer_types"] == [FULL for _ in layers] else window, origin)


def read_mistral_window(fields: Fields, origin: str) -> int | None:
  """Mistral: `sliding_window`, for every layer; null for none."""
  is_windowed = fields["sliding_window"] is not None
  return _uniform(fields, integer_from(fields, "sliding_window", 1, origin) if is_windowed else None, origin)


def read_no_window(fields: Fields, origin: str) -> int | None:
  """Llama: never."""
  return _uniform(fields, None, origin)


def write_qwen_window(window: int | None) -> Fields:
  """The inverse of `read_qwen_window`."""
  if window is None:
    return {"use_sliding_window": False}
  return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}


def write_mistral_window(window: int | None) -> Fields:
  """The inverse of `read_mistral_window`."""
  return {"sliding_window": window}


def write_no_window(window: int | None) -> Fields:
  """Llama has no key for it; `to_hf` compares what is read back and refuses."""
  del window
  return {}


def _uniform(fields: Fields, window: int | None, origin: str) -> int | None:
  """Returns the window if `layer_types`, where given, says the same of every layer."""
  expected = [FULL if window is None else SLIDING] * fields["num_hidden_layers"]
  if fields["layer_types"] is None or fields["layer_types"] == expected:
    return window
  raise InputError(
    f"{origin}: layer_types does not give every one of the {len(expected)} layers {expected[0]!r}; "
    "layers with and without a sliding window cannot be mixed, use another model"
  )
