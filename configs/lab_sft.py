"""The start of the lab's studies: supervised fine-tuning of a small random model on the synthetic world.

`amopo lab STUDY` sets data, seed and number of steps. By itself, on the quickstart's world:

amopo train --config=configs/lab_sft.py --workdir=runs/lab/start
"""

from ml_collections import ConfigDict

from configs import base, quickstart_sft

DIMENSIONS = ("helpfulness", "correctness", "instruction_following")


def get_config() -> ConfigDict:
  config = quickstart_sft.get_config()
  config.model.arch.update(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=384)
  for name in DIMENSIONS:
    config.data.contexts[name] = base.context(name, "focus on {dimension} score {score} .", low=0, high=4)
  config.data.rule = "both_ways"  # good responses and bad ones, each under its own scores
  config.train.update(steps=1000, log_every=1, save_every=50, keep=1, tensorboard=False)
  return config
