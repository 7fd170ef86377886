"""The quickstart's first stage: supervised fine-tuning of a small random model on the synthetic world.

amopo lab world --out=runs/quickstart/world
amopo train --config=configs/quickstart_sft.py --workdir=runs/quickstart/sft
"""

from ml_collections import ConfigDict

from configs import base

WORLD = "runs/quickstart/world"


def get_config() -> ConfigDict:
  config = base.get_config()
  config.model.arch = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 256,
    "hidden_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "intermediate_size": 448,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
  }
  # Unrolled layers and micro-batches of eight rows: what a step holds stays in a CPU's cache.
  config.model.update(remat="none", head_keep=0.1, unroll=4)
  config.data.train.world = base.source(f"{WORLD}/train.jsonl")
  config.data.heldout.world = base.source(f"{WORLD}/heldout.jsonl")
  config.data.tokenizer = f"{WORLD}/tokenizer"
  config.data.contexts.overall = base.context(template="focus on everything .")
  config.batch.update(rows=32, group_rows=8, accumulation=4, row_length=128)
  config.objective.update(name="sft", beta=2.0)
  config.optim.update(learning_rate=2e-3, warmup_fraction=0.05, clip=1.0, b2=0.99)
  config.train.update(steps=100, log_every=5, save_every=40)
  return config
