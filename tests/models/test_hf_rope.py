import pytest

from amopo_jax.models.config import RopeScaling
from amopo_jax.models.hf_rope import read_rope, write_rope
from amopo_jax.types import InputError

LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192,
}
LLAMA3_READ = RopeScaling(
  kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
)


def fields(**given) -> dict:
  return {"rope_theta": None, "rope_scaling": None, "rope_parameters": None} | given


@pytest.mark.parametrize(
  "given, expected",
  [
    ({}, (10000.0, None)),
    ({"rope_theta": 1e6}, (1e6, None)),
    ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, (5e5, LLAMA3_READ)),
    ({"rope_parameters": LLAMA3 | {"rope_theta": 5e5}}, (5e5, LLAMA3_READ)),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, (1e6, None)),
    ({"rope_scaling": {"type": "linear", "factor": 2}}, (10000.0, RopeScaling(kind="linear", factor=2.0))),
    ({"rope_theta": 5e5, "rope_scaling": LLAMA3, "rope_parameters": LLAMA3}, (5e5, LLAMA3_READ)),
    ({"rope_parameters": {"rope_theta": 1e6, "partial_rotary_factor": 1.0}}, (1e6, None)),
  ],
)
def test_both_spellings_are_read(given, expected):
  assert read_rope(fields(**given), "file") == expected


@pytest.mark.parametrize(
  "given, message",
  [
    ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_type 'yarn' is not supported, only default"),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope_type 'dynamic'"),
    ({"rope_scaling": {"rope_type": ["linear"], "factor": 4.0}}, "rope_type"),
    ({"rope_scaling": {"type": "linear"}}, "lack \\['factor'\\]"),
    ({"rope_scaling": LLAMA3 | {"attention_factor": 2.0}}, "unknown \\['attention_factor'\\]"),
    ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "unknown \\['full_attention'\\]"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
    ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor is '2'"),
    ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "high_freq_factor is 1.0; it must be a number > 1"),
    ({"rope_scaling": "linear"}, "not a table"),
    ({"rope_theta": -1.0}, "rope_theta is -1.0"),
    ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, "contradict"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": LLAMA3}, "contradict"),
  ],
)
def test_other_mathematics_is_refused_by_name(given, message):
  with pytest.raises(InputError, match=f"^file: .*{message}") as caught:
    read_rope(fields(**given), "file")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scaling", [None, LLAMA3_READ, RopeScaling(kind="linear", factor=4.0)])
def test_what_is_written_reads_back(scaling):
  assert read_rope(fields(**write_rope(5e5, scaling)), "file") == (5e5, scaling)
