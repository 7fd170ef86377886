"""Every key once, with its unit, its meaning and the value most runs want. Not a run by itself.

A config imports `get_config` from here, sets what it needs and returns the result; on the command line
`--config.optim.learning_rate=1e-6` overrides any key. `amopo doctor --config=…` checks a config without training.
"""

from ml_collections import ConfigDict

__all__ = ["get_config", "source"]


def source(path: str, format: str = "native", weight: float = 1.0) -> ConfigDict:
  """One data set.

  Args:
    path: a local, gs:// or hf://datasets/… file, several with commas or a glob, `tfds:NAME[:split]`, or a hub name
      (`nvidia/HelpSteer2`, `openbmb/UltraFeedback`).
    format: adapter that reads it (docs/data.md).
    weight: share of the draws where there are several data sets.
  """
  return ConfigDict({"path": path, "format": format, "weight": float(weight)})


def context(dimension: str = "", template: str = "rubric", low: float = 0.0, high: float = 0.0) -> ConfigDict:
  """One context.

  Args:
    dimension: the scores it is about; "" for a context without.
    template: `rubric`, `overall`, `plain`, or a text of one's own (docs/data.md).
    low, high: the data set's score range in this dimension, and in those that the template names.
  """
  return ConfigDict({"dimension": dimension, "template": template, "low": float(low), "high": float(high)})


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.seed = 0  # of initial weights, order of the data and noise; a stage after another wants another one

  config.model = ConfigDict()
  config.model.path = ""  # Hugging Face directory or hub name, or a workdir; "" starts from random weights of `arch`
  config.model.arch = ConfigDict()  # fields of a config.json; beside a path they must be its model's (amopo plan)
  config.model.param_dtype = "float32"  # of parameters and optimizer state: float32 or bfloat16
  config.model.compute_dtype = "float32"  # of activations and matrix products: float32 or bfloat16
  config.model.remat = "full"  # what the backward pass recomputes in each layer: a name of models.transformer.REMAT
  config.model.attention = "auto"  # auto: by the device; xla (any), xla_blocks (CPU), pallas_tpu, pallas_triton
  config.model.attention_chunk = 128  # queries that the xla attention takes at a time; kernels have their own blocks
  config.model.head_chunk = 1024  # scored tokens that the output head takes at a time, per device
  config.model.head_keep = 0.0  # GiB per device in which the head keeps logits instead of computing them twice
  config.model.unroll = 1  # layers in one turn of the loop over layers; more of them compile for longer

  config.lora = ConfigDict()
  config.lora.rank = 0  # r of low-rank adapters, which alone are trained and saved; 0: the whole model is trained
  config.lora.alpha = 16.0  # an adapter's output is scaled by alpha / rank
  # The frozen model's embedding, head, norms and biases stay in param_dtype, as do the adapters.
  config.lora.base_dtype = ""  # of the frozen kernels: bfloat16, int8 or nf4 (QLoRA); "": as param_dtype
  config.lora.targets = r"layers/.*/kernel"  # regular expression over kernel paths: which linear layers get adapters

  config.data = ConfigDict()
  config.data.train = ConfigDict(sort_keys=False)  # name -> source(...)
  config.data.heldout = ConfigDict(sort_keys=False)  # name -> source(...); empty: heldout_fraction of the prompts
  config.data.heldout_fraction = 0.1  # share of prompts held out where there is no held-out source; 0: no evaluation
  config.data.split_seed = 0  # draws the held-out prompts; stages that follow each other must share it
  config.data.tokenizer = ""  # directory or hub name; "": the model's own
  config.data.contexts = ConfigDict(sort_keys=False)  # name -> context(...), in the order of the axis K
  config.data.contexts_per_pair = 0  # drawn for a pair, anew in each epoch; 0: all of them
  config.data.place = "before"  # of the instruction: before or after the question, or in the system turn
  config.data.rule = "derived"  # which responses make a pair (docs/data.md)
  config.data.on_error = "raise"  # a bad record: raise, or skip and count
  config.data.too_long = "cut"  # over max_length: cut (keeps instruction, question's end, response), drop, error
  config.data.max_length = 0  # tokens of one prompt and response; 0: the row length
  # No cap: a longer response is cut only as far as the prompt needs the room (docs/data.md, "Lengths").
  config.data.max_response = 0  # tokens of a response that a long prompt cannot take away; 0: half of max_length
  config.data.shuffle = True  # a new order in every epoch
  config.data.workers = 0  # processes that encode and pack beside the training process
  config.data.template_kwargs = ConfigDict()  # handed to the chat template, e.g. {"enable_thinking": False}

  config.batch = ConfigDict()
  config.batch.rows = 8  # token rows of one step, all micro-batches and devices together
  config.batch.row_length = 2048  # tokens of a row
  config.batch.group_rows = 8  # packed together, as a pair's contexts are; times accumulation it divides rows
  config.batch.max_pairs = 0  # most pairs of one step; 0: as many as fit (rows * row_length / 16)
  config.batch.accumulation = 1  # micro-batches of one step; changes memory, not the result

  config.objective = ConfigDict()
  config.objective.name = "amopo"  # or sft, sft_both, simpo, orpo, cpo, slic, rrhf; with a reference: docs/method.md
  config.objective.beta = 0.8  # reward per nat per token; per nat of dpo's kin, cpo, slic; ipo's tau (docs/method.md)
  config.objective.target_margin = 2.0  # gamma, in units of reward, >= 0; delta of slic; the others ignore it
  config.objective.alpha = "gaussian"  # weights over contexts: a name of objective.alpha.ALPHAS, or fixed
  config.objective.fixed_alpha = ()  # one weight per context: where alpha is fixed, and of modpo, where () is all alike
  config.objective.ties = "keep"  # terms whose dimension does not order the pair: a name of preference.TIE_POLICIES
  config.objective.loss_power = 0.0  # alpha times each loss to this power: 1 turns to what is not learned, -1 away
  config.objective.gap_power = 0.0  # alpha times each pair's score gap to this power; wide gaps are the safer labels
  config.objective.uncertainty_rate = 0.0  # learns a variance per context, by steps of this size; 0.1 is usual, 0: none
  config.objective.per_turn = False  # multiplies alpha by what each record's turn wants (docs/data.md, "wanted")
  config.objective.gap_margin = 0.0  # times the score gap, added to the target margin; of modpo the widest gap's reward
  config.objective.sft_weight = 0.0  # adds this times the chosen responses' mean negative log-probability
  config.objective.length_weight = 0.0  # alpha of r_dpo, per token
  config.objective.ratio_weight = 0.1  # lambda of orpo: weight of its odds ratio beside the supervised loss
  config.objective.conflict_radius = 0.0  # c of RACO, in [0, 1): lets the contexts' gradients meet; K backward passes

  config.optim = ConfigDict()
  config.optim.name = "adamw"  # adamw, adafactor or lion
  config.optim.learning_rate = 3e-7  # peak
  config.optim.schedule = "cosine"  # cosine, linear or constant, after the warm-up
  config.optim.warmup_fraction = 0.1  # of the steps
  config.optim.clip = 3.0  # largest global gradient norm; 0: no clipping
  config.optim.weight_decay = 0.0  # decoupled; norms and biases are exempt
  config.optim.b1 = 0.9
  config.optim.b2 = 0.999
  config.optim.eps = 1e-8
  config.optim.mu_dtype = ""  # of the first moment of adamw and lion: float32 or bfloat16; "": as the parameters
  config.optim.offload = False  # keeps the moments in the memory of the hosts; they visit the devices for the update

  config.mesh = ConfigDict()
  config.mesh.data = 1  # replicas (docs/parallelism.md: which axis for what)
  config.mesh.fsdp = -1  # devices over which parameters and rows are split; -1: all that is left
  config.mesh.context = 1  # devices over which the tokens of a row are split, for long rows; divides row_length
  config.mesh.tensor = 1  # devices over which heads, MLP columns and vocabulary are split
  config.mesh.rules = ()  # (regular expression, axes) pairs, tried before the default ones (mesh/shardings.py)
  config.mesh.slices = 1  # slices of a multi-slice job, joined by slower links; divides data

  config.train = ConfigDict()
  config.train.epochs = 1  # over the training pairs; ignored where steps is set
  config.train.steps = 0  # 0: by epochs
  config.train.log_every = 1  # steps
  config.train.eval_every = 0  # steps; 0: at the start and at the end only
  config.train.save_every = 100  # steps; the last one is always saved
  config.train.keep = 2  # newest checkpoints that are kept
  # Only a checkpoint saved at a step that is evaluated can be the best: with eval_every = 0 that is the last one alone;
  # else let save_every be a multiple of eval_every.
  config.train.best_metric = "eval_rewards/accuracies"  # whose best checkpoint is kept as well; "": none
  config.train.best_is_highest = True
  config.train.tensorboard = True
  config.train.wandb_project = ""  # "": no Weights & Biases
  config.train.hang_minutes = 60.0  # without a step or an evaluated batch, then the run ends; 0: it waits for ever
  return config
