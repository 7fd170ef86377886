"""The quickstart's second stage: AMoPO over three dimensions, from the supervised start. `make quickstart` runs both.

    amopo train --config=configs/quickstart.py --workdir=runs/quickstart/amopo
"""

from ml_collections import ConfigDict

from configs import quickstart_sft


def get_config() -> ConfigDict:
  config = quickstart_sft.get_config()
  config.model.path = "runs/quickstart/sft"
  config.model.arch = ConfigDict()
  config.objective.update(name="amopo", beta=2.0, target_margin=1.0, ties="follow_dimension", sft_weight=0.1)
  config.optim.update(learning_rate=5e-4)
  config.train.update(steps=120, eval_every=40)
  return config
