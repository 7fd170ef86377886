"""The model shapes of the benchmarks, as fields of a Hugging Face config.json, which every contender reads."""

from typing import Any


def qwen2(
  *, layers: int, width: int, heads: int, kv_heads: int, mlp_width: int, words: int, tied: bool = True
) -> dict[str, Any]:
  """config.json of a Qwen2.5 of some size."""
  return {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": words,
    "hidden_size": width,
    "num_hidden_layers": layers,
    "num_attention_heads": heads,
    "num_key_value_heads": kv_heads,
    "intermediate_size": mlp_width,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": tied,
    "initializer_range": 0.02,
    "use_sliding_window": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
  }


SHAPES: dict[str, dict[str, Any]] = {
  "tiny": qwen2(layers=2, width=32, heads=4, kv_heads=2, mlp_width=64, words=256),
  "small": qwen2(layers=8, width=512, heads=8, kv_heads=2, mlp_width=1408, words=6_400),
  "qwen2.5-0.5b-4l": qwen2(layers=4, width=896, heads=14, kv_heads=2, mlp_width=4864, words=151_936),
  "qwen2.5-0.5b": qwen2(layers=24, width=896, heads=14, kv_heads=2, mlp_width=4864, words=151_936),
  "qwen2.5-7b": qwen2(layers=28, width=3584, heads=28, kv_heads=4, mlp_width=18_944, words=152_064, tied=False),
}
"""`tiny` is for tests; `small` has 25.9 M parameters; `qwen2.5-0.5b-4l` is a Qwen2.5-0.5B of four layers."""
