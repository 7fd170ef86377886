import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors.numpy import load_file

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.lora import init_adapters
from amopo_jax.models.peft_export import write_adapters

CONFIG = ModelConfig(
  architecture="Qwen2ForCausalLM",
  vocab_size=64,
  width=16,
  num_layers=3,
  num_heads=4,
  num_kv_heads=2,
  head_dim=4,
  mlp_width=24,
)


def test_names_shapes_and_config_are_those_of_peft(tmp_path):
  adapters = init_adapters(CONFIG, jax.random.key(0), rank=4, targets=r".*/(q|down)/kernel", dtype=jnp.float32)
  write_adapters(tmp_path, adapters, CONFIG, rank=4, alpha=8.0, base="org/base", dtype=np.dtype("bfloat16"))
  tensors = load_file(tmp_path / "adapter_model.safetensors")
  assert len(tensors) == 3 * 2 * 2
  name = "base_model.model.model.layers.2.mlp.down_proj.lora_{}.weight"
  assert tensors[name.format("A")].shape == (4, CONFIG.mlp_width)
  assert tensors[name.format("B")].shape == (CONFIG.width, 4)
  expected = np.asarray(adapters["layers"]["mlp"]["down"]["lora_a"])[2].T.astype(ml_dtypes.bfloat16)
  np.testing.assert_array_equal(tensors[name.format("A")], expected)
  config = json.loads((tmp_path / "adapter_config.json").read_text())
  assert config["target_modules"] == ["down_proj", "q_proj"]
  assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8.0)
  assert config["base_model_name_or_path"] == "org/base"
