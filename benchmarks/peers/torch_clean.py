"""(b) What a careful author would write in PyTorch: no padding, logits where a token is scored, one log-softmax.

`options["packed"]`: the 2K sequences of a pair as one row, positions restarted, and attention over each sequence by
itself, so that no product crosses a boundary; the projections and the head are single large products. Otherwise one
graph per sequence, with SDPA's causal path. Both keep their activations: nothing is computed twice.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from benchmarks.peers.serve import Counts, Job, Trainer, serve, triangle
from benchmarks.peers.torch_parts import amopo_loss, device_of, load_model, to_trainer

BY_SEGMENT = "by_segment"
Sequence2 = tuple[np.ndarray, np.ndarray]
"""(prompt, response)."""


def open_trainer(job: Job) -> Trainer:
  """One pair at a time, gradients added up over the batch."""
  packed = job.options["packed"]
  AttentionInterface.register(BY_SEGMENT, attend_by_segment)
  AttentionMaskInterface.register(BY_SEGMENT, lambda *args, **kwargs: None)
  model, pairs = load_model(job, BY_SEGMENT if packed else "sdpa"), job.pairs
  per_pair = len(pairs.prompts[0]) * 2
  flat = pairs.sequences
  by_pair = [flat[at : at + per_pair] for at in range(0, len(flat), per_pair)]
  score = packed_logps if packed else single_logps

  def backward_all(noise: torch.Tensor) -> tuple[float, list[float]]:
    total, told = 0.0, []
    for sequences, draws in zip(by_pair, noise, strict=True):
      loss, means = amopo_loss(job, score(model, sequences, device_of(job)), draws)
      (loss / len(by_pair)).backward()
      total, told = total + loss.item() / len(by_pair), told + means.flatten().tolist()
    return total, told

  lengths = [len(prompt) + len(response) for prompt, response in flat]
  counts = Counts(sum(lengths), sum(len(response) for _, response in flat), sum(map(triangle, lengths)))
  return to_trainer(job, model, backward_all, counts)


def single_logps(model: torch.nn.Module, sequences: Sequence[Sequence2], where: torch.device) -> list[torch.Tensor]:
  """Log-probabilities of each response's tokens, one forward pass per sequence."""
  found = []
  for prompt, response in sequences:
    ids = torch.from_numpy(np.concatenate([prompt, response])).long().to(where)
    # logits_to_keep projects the last positions alone: those that predict the response, and one that is cut off
    logits = model(input_ids=ids[None], use_cache=False, logits_to_keep=len(response) + 1).logits[0, :-1]
    found.append(_pick(logits, ids[len(prompt) :]))
  return found


def packed_logps(model: torch.nn.Module, sequences: Sequence[Sequence2], where: torch.device) -> list[torch.Tensor]:
  """The same in one forward pass over one row."""
  whole = [np.concatenate(pair) for pair in sequences]
  ends = np.cumsum([len(ids) for ids in whole])
  keep = np.concatenate(
    [np.arange(end - len(response), end) - 1 for end, (_, response) in zip(ends, sequences, strict=True)]
  )
  to_tensor = lambda x: torch.from_numpy(np.asarray(x)).long().to(where)
  ids, positions = to_tensor(np.concatenate(whole)), to_tensor(np.concatenate([np.arange(len(x)) for x in whole]))
  keep = to_tensor(keep)
  logits = model(
    input_ids=ids[None],
    position_ids=positions[None],
    use_cache=False,
    logits_to_keep=keep,
    segments=[len(x) for x in whole],
  ).logits[0]
  return list(_pick(logits, ids[keep + 1]).split([len(response) for _, response in sequences]))


def attend_by_segment(
  module: torch.nn.Module,
  query: torch.Tensor,
  key: torch.Tensor,
  value: torch.Tensor,
  attention_mask: torch.Tensor | None,
  segments: list[int],
  **kwargs,
) -> tuple[torch.Tensor, None]:
  """transformers' attention interface: causal SDPA over each segment of the row, [1 H S Dh] -> [1 S H Dh]."""
  del attention_mask, kwargs
  parts = zip(*(x.split(segments, dim=2) for x in (query, key, value)), strict=True)
  outputs = [scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True) for part in parts]
  return torch.cat(outputs, dim=2).transpose(1, 2), None


def _pick(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
  return -cross_entropy(logits.float(), targets, reduction="none")  # one log-softmax, and its fused gradient


if __name__ == "__main__":
  serve(open_trainer)
