"""A Hugging Face checkpoint written by hand: the oracle of the import and export tests. No torch, no package."""

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes  # noqa: F401 (numpy learns the name "bfloat16")
import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.fixture
def hf_fields() -> dict:
  """config.json of a two-layer untied Qwen2, as transformers 4 writes it."""
  return {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 16,
    "initializer_range": 0.02,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "max_window_layers": 2,
    "model_type": "qwen2",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "sliding_window": 32,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.46.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 40,
  }


@pytest.fixture
def hf_tensors() -> dict[str, np.ndarray]:
  """The tensors that go with `hf_fields`, as torch shapes them."""
  shapes = {"model.embed_tokens.weight": (40, 16), "model.norm.weight": (16,), "lm_head.weight": (40, 16)}
  for layer in ("model.layers.0.", "model.layers.1."):
    shapes |= {
      layer + "input_layernorm.weight": (16,),
      layer + "post_attention_layernorm.weight": (16,),
      layer + "self_attn.q_proj.weight": (16, 16),
      layer + "self_attn.q_proj.bias": (16,),
      layer + "self_attn.k_proj.weight": (8, 16),
      layer + "self_attn.k_proj.bias": (8,),
      layer + "self_attn.v_proj.weight": (8, 16),
      layer + "self_attn.v_proj.bias": (8,),
      layer + "self_attn.o_proj.weight": (16, 16),
      layer + "mlp.gate_proj.weight": (24, 16),
      layer + "mlp.up_proj.weight": (24, 16),
      layer + "mlp.down_proj.weight": (16, 24),
    }
  rng = np.random.default_rng(0)
  return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
  """Writes config and tensors into a directory, the tensors into one file or spread over several."""

  def write(fields: dict, tensors: dict[str, np.ndarray], *, num_files: int = 1, name: str = "model") -> Path:
    directory = tmp_path / name
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(fields))
    if num_files == 1:
      save_file(tensors, directory / "model.safetensors")
      return directory
    files = [f"model-{i + 1:05d}-of-{num_files:05d}.safetensors" for i in range(num_files)]
    weight_map = {key: files[i % num_files] for i, key in enumerate(sorted(tensors))}
    for file in files:
      save_file({key: tensors[key] for key in tensors if weight_map[key] == file}, directory / file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory

  return write
