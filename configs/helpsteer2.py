"""The released recipe on HelpSteer2: Qwen2.5-0.5B-Instruct, three dimensions, instruction before the question.

    amopo train --config=configs/helpsteer2.py --workdir=runs/helpsteer2

The model and the data are fetched by their hub names. The released set adds GPT-4o's scores for
instruction_following, which HelpSteer2 itself lacks; where yours has them, add
`base.context("instruction_following", high=4)`. Where the numbers come from: docs/method.md.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
  config = base.get_config()
  config.model.path = "Qwen/Qwen2.5-0.5B-Instruct"
  config.model.compute_dtype = "bfloat16"
  config.data.train.helpsteer2 = base.source("nvidia/HelpSteer2", "helpsteer2")
  for dimension in ("helpfulness", "correctness"):
    config.data.contexts[dimension] = base.context(dimension, low=0, high=4)
  config.data.contexts.overall = base.context(template="overall")
  config.data.max_length = 1024
  config.batch.update(rows=16, group_rows=8, row_length=2048)
  config.train.update(epochs=3, eval_every=200)
  return config
