"""The hyper-parameters that fix a decoder's mathematics; `hf_config` reads them from Hugging Face."""

from dataclasses import dataclass
from typing import Literal

from amopo_jax.types import InputError


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """How the rotary frequencies are stretched to reach contexts longer than those of pre-training.

  `linear` divides every frequency by `factor`. `llama3` divides the low frequencies by `factor`, keeps the
  high ones and interpolates between: a frequency is low if its wavelength exceeds
  `original_max_positions / low_freq_factor`, high if it is below `original_max_positions / high_freq_factor`.

  Attributes:
    kind: which rule.
    factor: how many times longer, ≥ 1.
    low_freq_factor: llama3 only, > 0.
    high_freq_factor: llama3 only, > low_freq_factor.
    original_max_positions: llama3 only, the context of pre-training in tokens.
  """

  kind: Literal["linear", "llama3"]
  factor: float
  low_freq_factor: float = 1.0
  high_freq_factor: float = 4.0
  original_max_positions: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """A pre-norm decoder with SwiGLU and rotary positions: Qwen2, Qwen2.5, Qwen3, Llama 3.x, Mistral.

  Frozen, hashable and made of plain values, so that it can be a static argument of a jitted function.

  Attributes:
    architecture: Hugging Face name, such as "Qwen2ForCausalLM"; says what an export is called, nothing else.
    vocab_size: V, rows of the embedding.
    width: D, size of the residual stream.
    num_layers: L.
    num_heads: H, query heads.
    num_kv_heads: G, key and value heads; divides num_heads.
    head_dim: Dh, even; H * Dh need not be D.
    mlp_width: F, size of the hidden layer of the SwiGLU block.
    norm_eps: added to the mean square in every RMSNorm.
    rope_theta: base of the rotary wavelengths.
    rope_scaling: stretching of the rotary frequencies, or None.
    qkv_bias: q, k and v have a bias (Qwen2); o never has.
    qk_norm: RMSNorm over each head of q and k before the rotation (Qwen3).
    tie_embeddings: the output head is the input embedding.
    sliding_window: last positions a token attends to in every layer, itself included; None: all of them.
    max_positions: longest sequence that the model was made for, tokens.
    initializer_range: standard deviation of random initial weights.
  """

  architecture: str
  vocab_size: int
  width: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_width: int
  norm_eps: float = 1e-6
  rope_theta: float = 10_000.0
  rope_scaling: RopeScaling | None = None
  qkv_bias: bool = False
  qk_norm: bool = False
  tie_embeddings: bool = False
  sliding_window: int | None = None
  max_positions: int = 32_768
  initializer_range: float = 0.02

  def __post_init__(self) -> None:
    sizes = ("vocab_size", "width", "num_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_width")
    for name in sizes:
      if getattr(self, name) < 1:
        raise InputError(f"model.{name}: {getattr(self, name)} is not positive; give at least 1")
    if self.num_heads % self.num_kv_heads:
      raise InputError(
        f"model.num_heads: {self.num_heads} is no multiple of num_kv_heads {self.num_kv_heads}; change one"
      )
    if self.head_dim % 2:
      raise InputError(f"model.head_dim: {self.head_dim} is odd, rotary positions turn pairs; make it even")
