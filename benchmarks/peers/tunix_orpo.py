"""(d) Tunix 0.1.7: its ORPO trainer on its own Qwen2, with the inputs that are "already tokenized, padded".

What favours it: no rematerialisation (its default), prompts and responses padded to the longest of the batch and no
further, its jitted step called directly, without the loop's metrics, progress bar and throttling; adamw of optax.
It computes logits at every position and keeps those of the responses.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from tunix.models.qwen2 import model as qwen2
from tunix.models.qwen2 import params
from tunix.sft.dpo.dpo_trainer import ORPOTrainer, ORPOTrainingConfig, TrainingInput

from benchmarks.peers.rows import Rows, make_rows
from benchmarks.peers.serve import Job, Loss, Trainer, peak_resident, serve


def open_trainer(job: Job) -> Trainer:
  """One pair's rows at a time; more pairs are accumulated by its own `gradient_accumulation_steps`."""
  pairs = job.pairs
  num_pairs, rows = len(pairs.prompts), make_rows(pairs)
  model = params.create_model_from_safe_tensors(job.model, model_config(job), dtype=jnp.dtype(job.dtype))
  config = ORPOTrainingConfig(
    algorithm="orpo",
    lambda_orpo=0.1,
    eval_every_n_steps=1_000_000,
    gradient_accumulation_steps=num_pairs if num_pairs > 1 else None,
  )
  trainer = ORPOTrainer(model, None, optax.adamw(job.learning_rate, weight_decay=0.0), config)
  batches = [trainer._prepare_inputs(to_input(part)) for part in rows.micro_batches(num_pairs)]
  train_step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)

  def step() -> Loss:
    losses = [train_step(batch)[0] for batch in batches]
    jax.block_until_ready((losses, jax.tree.leaves(trainer.optimizer), jax.tree.leaves(trainer.model)))
    return Loss(float(sum(losses)) / len(losses))

  return Trainer(step, rows.counts(), lambda: peak_bytes(job.device))


def model_config(job: Job) -> qwen2.ModelConfig:
  """Tunix's config of the job's model; flash attention is for TPUs."""
  fields = json.loads((Path(job.model) / "config.json").read_text())
  dtype = jnp.dtype(job.dtype)
  return qwen2.ModelConfig(
    num_layers=fields["num_hidden_layers"],
    vocab_size=fields["vocab_size"],
    embed_dim=fields["hidden_size"],
    hidden_dim=fields["intermediate_size"],
    num_heads=fields["num_attention_heads"],
    head_dim=fields["hidden_size"] // fields["num_attention_heads"],
    num_kv_heads=fields["num_key_value_heads"],
    rope_theta=int(fields["rope_theta"]),
    norm_eps=fields["rms_norm_eps"],
    use_tied_embedding=fields["tie_word_embeddings"],
    dtype=dtype,
    param_dtype=dtype,
  )


def to_input(rows: Rows) -> TrainingInput:
  """Tunix's names for the six arrays."""
  return TrainingInput(
    prompt_ids=rows.prompt,
    prompt_mask=rows.prompt_mask,
    chosen_ids=rows.chosen,
    chosen_mask=rows.chosen_mask,
    rejected_ids=rows.rejected,
    rejected_mask=rows.rejected_mask,
  )


def peak_bytes(device: str) -> int:
  """Of the accelerator, or of the process."""
  stats = jax.local_devices()[0].memory_stats() if device == "gpu" else None
  return int(stats["peak_bytes_in_use"]) if stats else peak_resident()


if __name__ == "__main__":
  serve(open_trainer)
