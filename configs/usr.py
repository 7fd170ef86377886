"""USR dialogues, second stage: AMoPO over the six human-scored dimensions, from the supervised start of `usr_sft.py`.

The held-out dialogues are drawn with `config.seed`: give both stages the same seed, rule and data.

amopo train --config=configs/usr.py --workdir=runs/usr/amopo --config.data.train.usr.path=usr.jsonl \
  --config.data.tokenizer=TOKENIZER_DIR --config.model.path=runs/usr/sft
"""

from ml_collections import ConfigDict

from configs import usr_sft


def get_config() -> ConfigDict:
  config = usr_sft.get_config()
  config.model.path = "runs/usr/sft"
  config.model.arch = ConfigDict()
  config.objective.update(name="amopo", beta=2.0, target_margin=0.5, ties="follow_dimension", sft_weight=0.2)
  config.optim.update(learning_rate=5e-4, weight_decay=0.1)
  config.train.update(steps=80, eval_every=20, save_every=80)
  return config
