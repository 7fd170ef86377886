"""(d) TRL 1.16: its experimental CPO trainer with the SimPO loss, as its documentation sets it up.

The trainer tokenises texts, so the ids are written as numbers and its tokenizer is one that reads numbers. What
favours it: no gradient checkpointing (its default has it), fused AdamW, no clipping, SDPA, the inner part of its loop
called directly (`training_step` and the optimizer); its collator pads to the longest sequence of the batch.
"""

import tempfile

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl.experimental.cpo import CPOConfig, CPOTrainer

from benchmarks.peers.pairs import Pairs
from benchmarks.peers.serve import Counts, Job, Loss, Trainer, peak_resident, serve, triangle

END = "<end>"
"""Name of the id 0: a special token is also found inside longer words, so it cannot be a number."""


def open_trainer(job: Job) -> Trainer:
  """One pair's rows at a time; more pairs are accumulated."""
  pairs = job.pairs
  contexts, longest = len(pairs.prompts[0]), max(len(prompt) + len(response) for prompt, response in pairs.sequences)
  model = AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, job.dtype), local_files_only=True)
  trainer = CPOTrainer(
    model=model,
    args=make_config(job, rows=contexts, longest=longest, accumulation=len(pairs.prompts)),
    train_dataset=Dataset.from_list(texts(pairs)),
    processing_class=number_tokenizer(model.config.vocab_size),
  )
  trainer.create_optimizer()
  trainer.current_gradient_accumulation_steps = len(pairs.prompts)  # what its loop sets: losses are divided by it
  batches = list(trainer.get_train_dataloader())

  def step() -> Loss:
    losses = [trainer.training_step(trainer.model, dict(batch)) for batch in batches]
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return Loss(float(sum(losses)))

  return Trainer(step, counts(batches), lambda: peak_bytes(job.device))


def make_config(job: Job, *, rows: int, longest: int, accumulation: int) -> CPOConfig:
  """SimPO as CPO: no supervised term, the margin of the job."""
  return CPOConfig(
    output_dir=tempfile.mkdtemp(),
    loss_type="simpo",
    cpo_alpha=0.0,
    beta=job.beta,
    simpo_gamma=job.target_margin,
    max_length=longest,
    max_completion_length=longest,
    per_device_train_batch_size=rows,
    gradient_accumulation_steps=accumulation,
    gradient_checkpointing=False,
    learning_rate=job.learning_rate,
    lr_scheduler_type="constant",
    optim="adamw_torch_fused",
    weight_decay=0.0,
    max_grad_norm=0.0,
    bf16=False,  # the parameters themselves have the job's type
    use_cpu=job.device == "cpu",
    report_to="none",
    save_strategy="no",
    disable_tqdm=True,
    dataloader_pin_memory=False,
    remove_unused_columns=False,
  )


def texts(pairs: Pairs) -> list[dict[str, str]]:
  """One row per context, ids as numbers; a response begins with a space, for prompt and response are joined."""
  write = lambda ids: " ".join(str(word) if word else END for word in ids.tolist())
  return [
    {"prompt": write(prompt), "chosen": " " + write(two[0]), "rejected": " " + write(two[1])}
    for prompts, two in zip(pairs.prompts, pairs.responses, strict=True)
    for prompt in prompts
  ]


def number_tokenizer(words: int) -> PreTrainedTokenizerFast:
  """Reads "17 4" as the ids 17 and 4."""
  backend = Tokenizer(WordLevel({END: 0} | {str(word): word for word in range(1, words)}, unk_token=END))
  backend.pre_tokenizer = WhitespaceSplit()
  return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=END)


def counts(batches: list[dict[str, torch.Tensor]]) -> Counts:
  """Chosen and rejected are joined at the length of the longer; logits of every position."""
  shapes = [
    np.array([2 * len(b["chosen_labels"]), max(b[f"{m}_input_ids"].shape[1] for m in ("chosen", "rejected"))])
    for b in batches
  ]
  tokens = int(sum(rows * length for rows, length in shapes))
  return Counts(tokens, tokens, int(sum(rows * triangle(int(length)) for rows, length in shapes)))


def peak_bytes(device: str) -> int:
  """Of the accelerator, or of the process."""
  return torch.cuda.max_memory_allocated() if device == "gpu" else peak_resident()


if __name__ == "__main__":
  serve(open_trainer)
