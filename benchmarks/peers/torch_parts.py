"""What the PyTorch contenders share: the transformers model, the optimizer, and the objective in torch."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from benchmarks.peers.serve import Counts, Job, Loss, Trainer, peak_resident

_NORM_PART = 1 << 22
"""Numbers whose squares are summed at a time: 32 MiB in float64."""


def load_model(job: Job, attention: str = "sdpa") -> torch.nn.Module:
  """The job's model in training mode; SDPA is the fastest attention that transformers has on any device."""
  model = AutoModelForCausalLM.from_pretrained(
    job.model, dtype=getattr(torch, job.dtype), attn_implementation=attention, local_files_only=True
  )
  model.config.use_cache = False
  return model.train().to(device_of(job))


def device_of(job: Job) -> torch.device:
  """Where the job runs."""
  return torch.device("cuda" if job.device == "gpu" else "cpu")


def make_optimizer(job: Job, model: torch.nn.Module) -> torch.optim.Optimizer:
  """AdamW, fused: torch's fastest, on the CPU too."""
  return torch.optim.AdamW(model.parameters(), lr=job.learning_rate, weight_decay=0.0, fused=True)


def to_trainer(
  job: Job, model: torch.nn.Module, backward_all: Callable[[torch.Tensor], tuple[float, list[float]]], counts: Counts
) -> Trainer:
  """A trainer around `backward_all(noise) -> (loss, mean log-probabilities)`, which leaves gradients behind.

  Gradients are dropped after the update, not zeroed, and noise beyond the drawn steps begins again.
  """
  optimizer = make_optimizer(job, model)
  noise = torch.from_numpy(job.pairs.noise).to(device_of(job))
  done = 0

  def step() -> Loss:
    nonlocal done
    loss, mean_logps = backward_all(noise[done % len(noise)])
    grad_norm = _grad_norm(model) if not done else None  # the first step is never timed
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    done += 1
    if job.device == "gpu":
      torch.cuda.synchronize()
    return Loss(loss, tuple(mean_logps), grad_norm)

  return Trainer(step, counts, lambda: peak_bytes(job))


def amopo_loss(job: Job, logps: Sequence[torch.Tensor], noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
  """The loss of one pair from the token log-probabilities of its 2K sequences: docs/method.md.

  Args:
    job: for beta and gamma.
    logps: of each sequence's scored tokens, by context and member.
    noise: [K, 2].

  Returns:
    The loss, and the mean log-probabilities [K, 2].
  """
  means = torch.stack([x.mean() for x in logps]).view(-1, 2)
  probs = [x.detach().exp() for x in logps]
  draws = torch.stack([p.mean() + p.std() * e for p, e in zip(probs, noise.flatten(), strict=True)])
  return weighted_loss(job, means, draws.view(-1, 2)), means


def weighted_loss(job: Job, means: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
  """Σ_k α_k · −log σ(margin_k − γ) with α = softmax over the contexts of the two draws' sums."""
  alpha = functional.softmax(draws.sum(-1), dim=0).detach()
  margins = job.beta * (means[:, 0] - means[:, 1])
  return (alpha * -functional.logsigmoid(margins - job.target_margin)).sum()


def peak_bytes(job: Job) -> int:
  """Of the accelerator, or of the process."""
  return torch.cuda.max_memory_allocated() if job.device == "gpu" else peak_resident()


def _grad_norm(model: torch.nn.Module) -> float:
  """In float64, a part at a time: torch's own norm of a large float32 table is wrong from the fifth digit on."""
  grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
  parts = (part for grad in grads for part in grad.flatten().split(_NORM_PART))
  return sum(part.double().square().sum().item() for part in parts) ** 0.5
