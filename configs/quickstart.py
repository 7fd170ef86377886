"""The quickstart's second stage: AMoPO over three dimensions, from the supervised start. `make quickstart` runs both.

amopo train --config=configs/quickstart.py --workdir=runs/quickstart/amopo
"""

from ml_collections import ConfigDict

from configs import base, quickstart_sft

DIMENSIONS = ("helpfulness", "correctness", "instruction_following")


def get_config() -> ConfigDict:
  config = quickstart_sft.get_config()
  config.seed = 1  # another order than the first stage's
  config.model.path = "runs/quickstart/sft"
  config.model.arch = ConfigDict()
  del config.data.contexts.overall
  for name in DIMENSIONS:
    config.data.contexts[name] = base.context(name, "focus on {dimension} score {score} .", low=0, high=4)
  config.objective.update(name="amopo", beta=2.0, target_margin=0.5, ties="follow_dimension", sft_weight=0.2)
  config.optim.update(learning_rate=5e-4)
  config.train.update(steps=80, eval_every=20)
  return config
