import pytest

from amopo_jax.models.hf_window import (
  read_mistral_window,
  read_no_window,
  read_qwen_window,
  write_mistral_window,
  write_qwen_window,
)
from amopo_jax.types import InputError

QWEN = {
  "num_hidden_layers": 3,
  "layer_types": None,
  "use_sliding_window": True,
  "sliding_window": 8,
  "max_window_layers": 0,
}
FULL, SLIDING = "full_attention", "sliding_attention"


@pytest.mark.parametrize(
  "given, expected",
  [
    ({}, 8),
    ({"use_sliding_window": False}, None),
    ({"sliding_window": None}, None),
    ({"max_window_layers": 3}, None),
    ({"max_window_layers": 28}, None),
    ({"layer_types": [SLIDING] * 3, "max_window_layers": 3}, 8),
    ({"layer_types": [FULL] * 3}, None),
  ],
)
def test_qwen_has_a_window_if_all_layers_have_it(given, expected):
  assert read_qwen_window(QWEN | given, "file") == expected


@pytest.mark.parametrize(
  "given, message",
  [
    ({"max_window_layers": 2}, "cannot be mixed"),
    ({"layer_types": [FULL, SLIDING, FULL]}, "cannot be mixed"),
    ({"layer_types": [SLIDING] * 2}, "every one of the 3 layers"),
    ({"layer_types": [SLIDING] * 3, "use_sliding_window": False}, "layer_types"),
    ({"layer_types": "sliding_attention"}, "layer_types"),
    ({"sliding_window": 0}, "sliding_window is 0"),
    ({"max_window_layers": None}, "max_window_layers is None"),
    ({"use_sliding_window": "yes"}, "use_sliding_window is 'yes'"),
  ],
)
def test_a_window_in_some_layers_is_refused(given, message):
  with pytest.raises(InputError, match=f"^file: .*{message}"):
    read_qwen_window(QWEN | given, "file")


def test_mistral_has_a_window_unless_null():
  fields = {"num_hidden_layers": 2, "layer_types": None, "sliding_window": 8}
  assert read_mistral_window(fields, "file") == 8
  assert read_mistral_window(fields | {"sliding_window": None}, "file") is None
  with pytest.raises(InputError, match="layer_types"):
    read_mistral_window(fields | {"layer_types": [FULL] * 2}, "file")


def test_llama_has_none():
  fields = {"num_hidden_layers": 2, "layer_types": None}
  assert read_no_window(fields, "file") is None
  with pytest.raises(InputError, match="layer_types"):
    read_no_window(fields | {"layer_types": [SLIDING] * 2}, "file")


@pytest.mark.parametrize("window", [None, 8])
def test_what_is_written_reads_back(window):
  assert read_qwen_window(QWEN | write_qwen_window(window), "file") == window
  fields = {"num_hidden_layers": 2, "layer_types": None, **write_mistral_window(window)}
  assert read_mistral_window(fields, "file") == window
