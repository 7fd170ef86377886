r"""The released recipe on HelpSteer2 for Qwen2.5-7B-Instruct, full fine-tuning on a slice v5e:8x8.

    amopo plan  --config=configs/qwen2_5_7b.py --topology=v5e:8x8
    launch/tpu_vm.sh all --name=NAME --zone=ZONE --type=v5litepod-64 --spot \
      -- --config=configs/qwen2_5_7b.py --workdir=gs://BUCKET/qwen2_5_7b

1 row of 2,048 tokens per chip, about 55 pairs in a step; the learning rate is that of the release, whose steps
hold 2. The data lack the release's third dimension (configs/helpsteer2.py).

Plan of 2026-11-30, no TPU was there: 5.9 of 16 GiB per chip, 0.55 to 1.02 s per step; three epochs of 9,000 pairs are
495 steps, 0.08 to 0.14 hours.
"""

from ml_collections import ConfigDict

from configs import helpsteer2


def get_config() -> ConfigDict:
  config = helpsteer2.get_config()
  config.model.path = "Qwen/Qwen2.5-7B-Instruct"
  config.model.arch = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "use_sliding_window": False,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": False,
  }
  config.batch.update(rows=64, group_rows=8)
  config.train.update(eval_every=20, save_every=20)
  return config
