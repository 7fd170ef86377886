"""(a) The computation of the released code (Javkonline/AMoPO d8caba0) in plain PyTorch and transformers.

Per pair: eight rows, right padded to the longest, attention mask and all; logits of every position in float32; a
log-softmax and a softmax over the whole vocabulary, both in the graph; means per sequence; a normal draw per sequence
on the host. What favours it: no padding to a multiple of eight, no gradient checkpointing (the framework's default),
no print, fused AdamW, SDPA; and the noise is given and the weights are normalised per pair, so that its loss is the
loss of all others and not a quarter of it.
"""

import torch

from benchmarks.peers.serve import Counts, Job, Trainer, serve, triangle
from benchmarks.peers.torch_parts import device_of, load_model, to_trainer, weighted_loss

IGNORED = -100


def open_trainer(job: Job) -> Trainer:
  """One pair at a time, gradients added up over the batch: the released batch size is one pair."""
  model, where = load_model(job), device_of(job)
  pairs = job.pairs
  per_pair = len(pairs.prompts[0]) * 2
  sequences = pairs.sequences
  batches = [pad(sequences[at : at + per_pair], where) for at in range(0, len(sequences), per_pair)]

  def backward_all(noise: torch.Tensor) -> tuple[float, list[float]]:
    total, told = 0.0, []
    for batch, draws in zip(batches, noise, strict=True):
      loss, means = pair_loss(job, model, batch, draws)
      (loss / len(batches)).backward()
      total, told = total + loss.item() / len(batches), told + means.flatten().tolist()
    return total, told

  shapes = [batch["input_ids"].shape for batch in batches]
  tokens = sum(rows * length for rows, length in shapes)
  counts = Counts(tokens, tokens, sum(rows * triangle(length) for rows, length in shapes))
  return to_trainer(job, model, backward_all, counts)


def pad(sequences: list, where: torch.device) -> dict[str, torch.Tensor]:
  """Rows of one pair, right padded to its longest, with labels on the response alone."""
  longest = max(len(prompt) + len(response) for prompt, response in sequences)
  ids = torch.zeros(len(sequences), longest, dtype=torch.long)
  mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
  for row, (prompt, response) in enumerate(sequences):
    end = len(prompt) + len(response)
    ids[row, : len(prompt)], ids[row, len(prompt) : end] = torch.from_numpy(prompt), torch.from_numpy(response)
    mask[row, :end], labels[row, len(prompt) : end] = 1, ids[row, len(prompt) : end]
  batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
  return {name: tensor.to(where) for name, tensor in batch.items()}


def pair_loss(
  job: Job, model: torch.nn.Module, batch: dict[str, torch.Tensor], noise: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
  """Loss of one pair, and the mean log-probabilities [K, 2]."""
  inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
  logits = model(**inputs, use_cache=False).logits.to(torch.float32)
  labels, logits = batch["labels"][:, 1:].clone(), logits[:, :-1, :]
  mask = labels != IGNORED
  labels[~mask] = 0
  pick = lambda table: torch.gather(table, 2, labels[:, :, None]).squeeze(2)
  logps = pick(logits.log_softmax(-1))
  probs = pick(logits.softmax(-1))  # in the graph, as released, although no gradient comes back
  means = (logps * mask).sum(-1) / mask.sum(-1)
  draws = [_draw(row[row != 0], e) for row, e in zip(probs * mask, noise.flatten(), strict=True)]
  return weighted_loss(job, means.view(-1, 2), torch.tensor(draws, device=means.device).view(-1, 2)), means.detach()


def _draw(probs: torch.Tensor, noise: torch.Tensor) -> float:
  return (probs.mean() + probs.std() * noise).item()


if __name__ == "__main__":
  serve(open_trainer)
