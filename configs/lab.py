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
  config.data.rule = "derived"
  # A step takes 24 pairs; each context adds a micro-batch of these (lab/jobs.py).
  config.batch.update(rows=36, group_rows=9, accumulation=4, max_pairs=24)
  # A context asks for the chosen response's score, so a dimension that prefers the other one has no say in it.
  config.objective.update(name="amopo", beta=2.0, target_margin=0.5, ties="mask_ties", sft_weight=1.0)
  config.optim.update(learning_rate=1e-3, warmup_fraction=0.1)  # the best of five: amopo lab rates
  config.train.update(steps=100, log_every=1)
  return config
