"""Losses against TRL's own on the same log-probabilities; `python -m benchmarks.peers.trl_losses` made the values."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from amopo_jax.objective import make_cpo, make_dpo, make_ipo, make_kto, make_orpo, make_simpo, make_slic
from amopo_jax.types import PairInfo, ResponseMoments

TRL = json.loads((Path(__file__).parent.parent / "fixtures" / "trl_losses.json").read_text())
BETA = TRL["beta"]
PLAIN = {"beta": BETA, "sft_weight": 0.0}
OURS = {
  "dpo": make_dpo(beta=BETA),
  "ipo": make_ipo(beta=BETA),
  "kto": make_kto(beta=BETA),
  "simpo": make_simpo(beta=BETA, target_margin=TRL["simpo_gamma"]),
  "cpo": make_cpo(**PLAIN),
  "slic": make_slic(target_margin=1.0, **PLAIN),
}


@pytest.fixture
def pairs():
  """TRL's pairs in one context each."""
  field = lambda name: jnp.asarray(TRL[name], jnp.float32)[:, None, :]
  length, sums = field("lengths"), field("sums")
  moments = ResponseMoments(length, sums, *[jnp.zeros_like(sums)] * (len(ResponseMoments._fields) - 2))
  ones = jnp.ones((len(sums), 1))
  info = PairInfo(ones > 0, ones, jnp.full(len(sums), 1 / len(sums)), field("reference"))
  return moments, jnp.zeros((len(sums), 1, 2)), info


@pytest.mark.parametrize("name", OURS)
def test_ours_is_trl_s(pairs, name):
  loss, aux = OURS[name](*pairs)
  np.testing.assert_allclose(aux.losses[:, 0], TRL["losses"][name], rtol=2e-6, atol=1e-6)
  assert loss == pytest.approx(np.mean(TRL["losses"][name]), rel=1e-6)


def test_the_odds_ratio_of_orpo_is_trl_s(pairs):
  without, whole = (make_orpo(ratio_weight=weight)(*pairs)[1].losses[:, 0] for weight in (0.0, TRL["orpo_beta"]))
  np.testing.assert_allclose(whole - without, TRL["losses"]["orpo_ratio"], rtol=2e-5, atol=1e-6)
