"""TRL 1.16's own losses of given log-probabilities: what tests/objective/test_trl_values.py compares ours with.

    python -m benchmarks.peers.trl_losses > tests/fixtures/trl_losses.json      # in TRL's environment

The trainers' loss functions are called with a stand-in for the trainer and for the model, so that TRL's code alone, and
no model, decides. One pair at a time, float64.
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import trl
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

PAIRS = 5
BETA, SIMPO_GAMMA, ORPO_BETA = 0.3, 0.7, 0.25


def main() -> None:
  rng = np.random.default_rng(0)
  lengths = rng.integers(3, 20, (PAIRS, 2))
  sums = -lengths * rng.uniform(0.3, 2.5, (PAIRS, 2))
  reference = sums + rng.normal(0, 2, (PAIRS, 2))
  each = lambda loss: [loss(*pair) for pair in zip(sums, lengths, reference, strict=True)]
  losses = {
    "dpo": each(lambda *pair: of_dpo("sigmoid", *pair)),
    "ipo": each(lambda *pair: of_dpo("ipo", *pair)),
    "kto": each(of_kto),
    "simpo": each(lambda logps, length, _: of_cpo("simpo", logps / length)),
    "cpo": each(lambda logps, *_: of_cpo("sigmoid", logps)),
    "slic": each(lambda logps, *_: of_cpo("hinge", logps)),
    "orpo_ratio": each(lambda logps, length, _: of_orpo(logps / length)),
  }
  given = {"sums": sums.tolist(), "lengths": lengths.tolist(), "reference": reference.tolist()}
  keys = {"beta": BETA, "simpo_gamma": SIMPO_GAMMA, "orpo_beta": ORPO_BETA}
  json.dump({"trl": trl.__version__, **keys, **given, "losses": losses}, sys.stdout, indent=1)
  print()


def of_dpo(kind: str, logps: np.ndarray, lengths: np.ndarray, reference: np.ndarray) -> float:
  """DPOTrainer's, of kind "sigmoid" or "ipo"."""
  mask, model = responses(logps, lengths)
  chosen, rejected = torch.tensor(reference)[:, None]
  inputs = {"input_ids": mask, "completion_mask": mask, "attention_mask": torch.ones_like(mask)}
  inputs |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
  trainer = stand_in(
    beta=BETA, loss_types=[kind], loss_weights=[1.0], f_divergence_type="reverse_kl", ld_alpha=None, use_weighting=False
  )
  return float(DPOTrainer._compute_loss(trainer, model, inputs, False))


def of_kto(logps: np.ndarray, lengths: np.ndarray, reference: np.ndarray) -> float:
  """KTOTrainer's, whose divergence is told to be that of the pair itself."""
  mask, model = responses(logps, lengths)
  inputs = {"input_ids": mask, "completion_mask": mask, "attention_mask": torch.ones_like(mask)}
  inputs |= {"label": torch.tensor([True, False]), "ref_logps": torch.tensor(reference)}
  inputs |= {"ref_KL_logps": torch.tensor(reference)}
  trainer = stand_in(beta=BETA, loss_type="kto", calculate_KL=True, desirable_weight=1.0, undesirable_weight=1.0)
  trainer._compute_kl_logps = lambda model, batch: torch.tensor(logps)
  return float(KTOTrainer._compute_loss(trainer, model, inputs, False))


def of_cpo(kind: str, logps: np.ndarray) -> float:
  """CPOTrainer's preference term, of kind "simpo", "sigmoid" or "hinge"."""
  trainer = stand_in(alpha=0.0, beta=BETA, loss_type=kind, simpo_gamma=SIMPO_GAMMA, label_smoothing=0.0)
  return float(CPOTrainer.cpo_loss(trainer, *torch.tensor(logps)[:, None])[0])


def of_orpo(mean_logps: np.ndarray) -> float:
  """ORPOTrainer's odds ratio, which its loss subtracts; TRL computes it in float32."""
  trainer = stand_in(beta=ORPO_BETA)
  return -float(ORPOTrainer.odds_ratio_loss(trainer, *torch.tensor(mean_logps)[:, None])[0])


def responses(logps: np.ndarray, lengths: np.ndarray) -> tuple[torch.Tensor, Any]:
  """Mask of two responses behind one token of a prompt, and a model of which they have these log-probabilities."""
  mask = (torch.arange(int(lengths.max()) + 1)[None] <= torch.tensor(lengths)[:, None]).long()
  mask[:, 0] = 0
  tokens = torch.tensor(logps / lengths)[:, None] * mask[:, 1:]
  nothing = torch.zeros_like(tokens)
  outputs = SimpleNamespace(log_probs=tokens, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())
  return mask, lambda **inputs: outputs


def stand_in(**settings: Any) -> Any:
  """A trainer of one process, whose model is not in training."""
  same = lambda value: value
  accelerator = SimpleNamespace(device=torch.device("cpu"), gather=same, gather_for_metrics=same)
  metrics = {"eval": defaultdict(list), "train": defaultdict(list)}
  return SimpleNamespace(
    accelerator=accelerator,
    model=SimpleNamespace(training=False),
    aux_loss_enabled=False,
    precompute_ref_logps=True,
    _metrics=metrics,
    _total_train_tokens=0,
    **settings,
  )


if __name__ == "__main__":
  main()
