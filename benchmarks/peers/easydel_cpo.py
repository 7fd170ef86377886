"""(d) EasyDeL 0.3.0: its CPO trainer with the SimPO loss on its own Qwen2.

What favours it: no gradient checkpointing, prompts and responses padded to the longest of the batch and no further,
no clipping, its jitted step called directly, without the loop's logging and checkpoints. Its vocabulary chunking
(`lmhead_chunksize`), which saves memory and costs time, stays off as by default.
"""

import tempfile

import easydel as ed
import jax
import jax.numpy as jnp
import numpy as np
import torch
from datasets import Dataset
from easydel.trainers import CPOConfig, CPOTrainer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from benchmarks.peers.rows import Rows, make_rows
from benchmarks.peers.serve import Job, Loss, Trainer, peak_resident, serve


def open_trainer(job: Job) -> Trainer:
  """All rows of the batch in one step; more pairs are accumulated by its own `gradient_accumulation_steps`."""
  pairs = job.pairs
  rows = make_rows(pairs)
  trainer = CPOTrainer(
    arguments=make_config(job, rows, accumulation=len(pairs.prompts)),
    model=load_model(job, rows.length),
    processing_class=PreTrainedTokenizerFast(
      tokenizer_object=Tokenizer(WordLevel({"0": 0}, unk_token="0")), eos_token="0", pad_token="0"
    ),
    train_dataset=Dataset.from_list(to_records(rows)),
  )
  batch = {name: jnp.asarray(array) for name, array in to_arrays(rows).items()}
  state = trainer.model_state

  def step() -> Loss:
    nonlocal state
    with trainer.mesh:
      state, metrics = trainer.sharded_training_step_function(state, batch, *trainer._train_shared_fn_static_args)
    jax.block_until_ready((state.graphstate, state.opt_state))
    return Loss(float(metrics.loss))

  return Trainer(step, rows.counts(), lambda: peak_bytes(job.device))


def load_model(job: Job, length: int) -> ed.EasyDeLBaseModule:
  """Its Qwen2 with the job's weights, on one device."""
  dtype = jnp.dtype(job.dtype)
  return ed.AutoEasyDeLModelForCausalLM.from_pretrained(
    job.model,
    dtype=dtype,
    param_dtype=dtype,
    sharding_axis_dims=(1, 1, 1, 1, 1),
    config_kwargs=ed.EasyDeLBaseConfigDict(
      freq_max_position_embeddings=length,
      mask_max_position_embeddings=length,
      gradient_checkpointing=ed.EasyDeLGradientCheckPointers.NONE,
    ),
    torch_dtype=getattr(torch, job.dtype),  # else it reads float32 files as float16
    local_files_only=True,
  )


def make_config(job: Job, rows: Rows, *, accumulation: int) -> CPOConfig:
  """SimPO as CPO: no supervised term, the margin of the job."""
  return CPOConfig(
    save_directory=tempfile.mkdtemp(),
    loss_type="simpo",
    cpo_alpha=0.0,
    beta=job.beta,
    simpo_gamma=job.target_margin,
    max_length=rows.length,
    max_prompt_length=rows.prompt.shape[1],
    max_completion_length=rows.chosen.shape[1],
    total_batch_size=len(rows.prompt),
    gradient_accumulation_steps=accumulation,
    learning_rate=job.learning_rate,
    optimizer=ed.EasyDeLOptimizers.ADAMW,
    scheduler=ed.EasyDeLSchedulers.NONE,
    weight_decay=0.0,
    clip_grad=None,
    num_train_epochs=1,
    do_last_save=False,
    save_optimizer_state=False,
    report_metrics=False,
    use_wandb=False,
    progress_bar_type="json",
  )


def to_arrays(rows: Rows) -> dict[str, np.ndarray]:
  """EasyDeL's names for the six arrays."""
  names = {"prompt": rows.prompt, "chosen": rows.chosen, "rejected": rows.rejected}
  masks = {"prompt": rows.prompt_mask, "chosen": rows.chosen_mask, "rejected": rows.rejected_mask}
  ids = {f"{name}_input_ids": array for name, array in names.items()}
  return ids | {f"{name}_attention_mask": array for name, array in masks.items()}


def to_records(rows: Rows) -> list[dict[str, list[int]]]:
  """The same as a data set that is already tokenised."""
  arrays = to_arrays(rows)
  return [{name: array[row].tolist() for name, array in arrays.items()} for row in range(len(rows.prompt))]


def peak_bytes(device: str) -> int:
  """Of the accelerator, or of the process."""
  stats = jax.local_devices()[0].memory_stats() if device == "gpu" else None
  return int(stats["peak_bytes_in_use"]) if stats else peak_resident()


if __name__ == "__main__":
  serve(open_trainer)
