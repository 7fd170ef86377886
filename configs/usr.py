"""USR dialogues, second stage: AMoPO over the six human-scored dimensions, from the supervised start of `usr_sft.py`.

The held-out dialogues are drawn with `config.data.split_seed`: give both stages the same one, and the same data.

amopo train --config=configs/usr.py --workdir=runs/usr/amopo --config.data.train.usr.path=usr.jsonl \
  --config.data.tokenizer=TOKENIZER_DIR --config.model.path=runs/usr/sft
"""

from ml_collections import ConfigDict

from configs import usr_sft


def get_config() -> ConfigDict:
  config = usr_sft.get_config()
  config.seed = 1  # another order than the first stage's
  config.model.path = "runs/usr/sft"
  config.model.arch = ConfigDict()
  config.objective.update(name="amopo", beta=2.0, target_margin=0.5, ties="follow_dimension")
  config.optim.update(learning_rate=2e-3)
  config.train.update(steps=40)
  return config
