"""USR dialogues, first stage: supervised fine-tuning of a small random model. `usr.py` is the second stage.

Six human-scored dimensions of responses to the same multi-turn dialogue (Mehri and Eskenazi 2020; the file is UniEval's
topical_chat.json). The paths are arguments; the tokenizer is any with a chat template and at most 6,400 entries.

amopo convert --format=usr --data=topical_chat.json --out=usr.jsonl
amopo train --config=configs/usr_sft.py --workdir=runs/usr/sft --config.data.train.usr.path=usr.jsonl \
  --config.data.tokenizer=TOKENIZER_DIR
"""

from ml_collections import ConfigDict

from configs import base

RANGES = {
  "understandability": (0, 1),
  "naturalness": (1, 3),
  "coherence": (1, 3),
  "engagingness": (1, 3),
  "groundedness": (0, 1),
  "overall": (1, 5),
}
"""Each dimension's scale; a score is the mean of three annotators."""

TEMPLATE = "Pay attention above all to {dimension}. Write the response that would be rated {score} of 5."
"""Shorter than the rubric: six contexts of it cost as many tokens as the dialogue."""


def get_config() -> ConfigDict:
  config = base.get_config()
  config.model.arch = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 6400,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "intermediate_size": 384,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
  }
  config.model.update(remat="none", head_keep=1.0)
  config.data.train.usr = base.source("")
  for name, (low, high) in RANGES.items():
    config.data.contexts[name] = base.context(name, TEMPLATE, low=low, high=high)
  config.data.place = "after"
  config.data.rule = "all_pairs"
  config.data.heldout_fraction = 0.2
  config.data.max_length = 1024
  config.batch.update(rows=4, group_rows=4, row_length=2048)
  config.objective.update(name="sft", beta=2.0)
  config.optim.update(learning_rate=2e-3, clip=1.0, b2=0.99, weight_decay=0.1)
  config.train.update(steps=32, log_every=4)
  return config
