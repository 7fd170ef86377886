"""The quickstart with other weights over contexts: is it the Gaussian that helps?

    amopo train --config=configs/ablations/weights.py --workdir=runs/weights/uniform --config.objective.alpha=uniform

Any name of `amopo_jax.objective.ALPHAS` will do but gaussian_flat, which needs a step of one micro-batch.
The supervised start is the quickstart's.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
  config = quickstart.get_config()
  config.objective.alpha = "jitter"
  return config
