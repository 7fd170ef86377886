"""UltraFeedback pairs, second stage: AMoPO over the general and the scored context, from `ultrafeedback_sft.py`.

The held-out prompts are drawn with `config.data.split_seed`: give both stages the same one, and the same data.

amopo train --config=configs/ultrafeedback.py --workdir=runs/ultrafeedback/amopo \
  --config.data.train.ultrafeedback.path=train.jsonl --config.data.tokenizer=TOKENIZER_DIR \
  --config.model.path=runs/ultrafeedback/sft
"""

from ml_collections import ConfigDict

from configs import ultrafeedback_sft


def get_config() -> ConfigDict:
  config = ultrafeedback_sft.get_config()
  config.seed = 1  # another order than the first stage's
  config.model.path = "runs/ultrafeedback/sft"
  config.model.arch = ConfigDict()
  config.objective.update(name="amopo", beta=2.0, target_margin=0.5, ties="follow_dimension")
  config.optim.update(learning_rate=2e-3)
  config.train.update(steps=36)
  return config
