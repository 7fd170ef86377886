"""UltraFeedback pairs, first stage: supervised fine-tuning of a small random model. `ultrafeedback.py` is the second.

Rows with prompt, chosen, rejected and the overall score of each (adapter `preference`). The paths are arguments; the
tokenizer is Qwen2.5's, or any with a chat template and at most 151,936 entries. Rows with an empty response are
skipped and counted.

amopo train --config=configs/ultrafeedback_sft.py --workdir=runs/ultrafeedback/sft \
  --config.data.train.ultrafeedback.path=train.jsonl --config.data.tokenizer=TOKENIZER_DIR
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
  config = base.get_config()
  config.model.arch = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
  }
  config.model.update(remat="none", head_keep=1.0)
  config.data.train.ultrafeedback = base.source("", "preference")
  config.data.contexts.overall = base.context(template="overall")
  config.data.contexts.overall_score = base.context("overall", "rubric", low=1, high=10)
  config.data.on_error = "skip"
  config.data.place = "after"
  config.data.heldout_fraction = 0.2
  config.data.max_length = 1024
  config.data.max_response = 512
  config.batch.update(rows=8, group_rows=8, row_length=1024)
  config.objective.update(name="sft", beta=2.0)
  config.optim.update(learning_rate=3e-3, clip=1.0, b2=0.99)
  config.train.update(steps=24, log_every=4)
  return config
