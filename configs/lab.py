"""What the lab's studies compare, from their start: AMoPO, of which every other method changes some keys.

`amopo lab STUDY` sets data, seed, number of steps and what the method is about. By itself, from the start there:

amopo train --config=configs/lab.py --workdir=runs/lab/amopo
"""

from ml_collections import ConfigDict

from configs import lab_sft


def get_config() -> ConfigDict:
  config = lab_sft.get_config()
  config.model.path = "runs/lab/start"
  config.model.arch = {}
  config.objective.update(name="amopo", beta=2.0, target_margin=0.5, ties="follow_dimension", sft_weight=0.2)
  config.optim.update(learning_rate=3e-4)
  config.train.update(steps=100, log_every=1)
  return config
