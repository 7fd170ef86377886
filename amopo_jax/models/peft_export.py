"""Adapters as a directory that peft loads onto the base: `adapter_config.json`, `adapter_model.safetensors`.

    layers/attn/q/lora_a[l]    base_model.model.model.layers.{l}.self_attn.q_proj.lora_A.weight    [r in] there
    layers/attn/q/lora_b[l]    base_model.model.model.layers.{l}.self_attn.q_proj.lora_B.weight    [out r] there

Source of the names: "PEFT checkpoint format" in the peft documentation.
"""

import json
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (gives numpy the name "bfloat16")
import numpy as np
from safetensors.numpy import save_file

from amopo_jax.models.config import ModelConfig
from amopo_jax.models.lora import adapters_at, kernel_leaves
from amopo_jax.types import Params

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


def write_adapters(
  folder: Path, adapters: Params, config: ModelConfig, *, rank: int, alpha: float, base: str, dtype: Any
) -> None:
  """Writes both files.

  Args:
    folder: local, exists.
    adapters: of `lora.init_adapters`, in arrays that this process can read.
    config: the decoder.
    rank, alpha: r and α.
    base: directory or hub name of the model that they belong to, "" if it has none.
    dtype: type in the file.
  """
  tensors = adapter_tensors(adapters, config, dtype)
  save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
  modules = sorted({name.split(".")[-3] for name in tensors})
  content = adapter_config(modules, rank=rank, alpha=alpha, base=base)
  (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n")


def adapter_tensors(adapters: Params, config: ModelConfig, dtype: Any) -> dict[str, np.ndarray]:
  """All tensors of the file, by their names there."""
  tensors: dict[str, np.ndarray] = {}
  for leaf in kernel_leaves(config):
    pair = adapters_at(adapters, leaf)
    for letter, stacked in zip("AB", (np.asarray(x) for x in pair or ()), strict=False):
      for name, matrix in zip(leaf.names, stacked, strict=True):
        key = _PREFIX + name.removesuffix("weight") + f"lora_{letter}.weight"
        tensors[key] = np.ascontiguousarray(matrix.T.astype(dtype))
  return tensors


def adapter_config(modules: list[str], *, rank: int, alpha: float, base: str) -> dict[str, Any]:
  """What peft needs to know: plain LoRA, scaled by α / r, without dropout, biases or anything else that is trained."""
  return {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base or None,
    "r": rank,
    "lora_alpha": alpha,
    "target_modules": modules,
    "lora_dropout": 0.0,
    "bias": "none",
    "fan_in_fan_out": False,
    "use_rslora": False,
    "use_dora": False,
    "modules_to_save": None,
    "inference_mode": True,
  }
