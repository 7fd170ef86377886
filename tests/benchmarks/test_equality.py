import numpy as np

from benchmarks.contenders import Contender
from benchmarks.equality import ORPO_WEIGHT, compare, own_loss
from benchmarks.peers.serve import Counts
from benchmarks.rounds import Check

LOGPS = np.array([[-1.5, -2.0], [-0.7, -0.2]])
LENGTHS = np.array([[4.0, 3.0], [2.0, 5.0]])


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def test_simpo_and_orpo_by_their_formulas(job):
  margins = 0.8 * (LOGPS[:, 0] - LOGPS[:, 1])
  np.testing.assert_allclose(own_loss("simpo", LOGPS, LENGTHS, job), np.mean(-np.log(sigmoid(margins - 2.0))))
  p = np.exp(LOGPS * LENGTHS)
  ratio = (p[:, 0] / (1 - p[:, 0])) / (p[:, 1] / (1 - p[:, 1]))
  expected = np.mean(-LOGPS[:, 0] - ORPO_WEIGHT * np.log(sigmoid(np.log(ratio))))
  np.testing.assert_allclose(own_loss("orpo", LOGPS, LENGTHS, job), expected)


def check(*losses, logps=(), grad_norm=3.0):
  step = {"mean_logps": logps, "peak_bytes": 1, "grad_norm": grad_norm}
  return Check(Counts(1, 1, 1), [step | {"loss": loss} for loss in losses])


def test_a_contender_that_differs_is_found(job):
  logps = tuple(np.linspace(-2, -1, 8))
  table = np.array(logps).reshape(-1, 2)
  lengths = np.array([len(response) for _, response in job.pairs.sequences], float).reshape(-1, 2)
  right = own_loss("simpo", table, lengths, job)
  contenders = {name: Contender(name, "") for name in ("ours", "same", "sign", "norm")}
  contenders |= {name: Contender(name, "", "simpo") for name in ("peer", "stranger")}
  checks = {"ours": check(2.0, 1.9, logps=logps), "same": check(2.0, 1.9), "sign": check(2.0, 1.91)}
  checks["norm"] = check(2.0, 1.9, grad_norm=3.01)
  checks |= {"peer": check(right, 1.0, grad_norm=None), "stranger": check(right * 1.001, 1.0)}
  verdicts = compare(contenders, checks, job)
  assert {name: verdict.is_equal for name, verdict in verdicts.items()} == {
    "ours": True,
    "same": True,
    "sign": False,
    "norm": False,
    "peer": True,
    "stranger": False,
  }


def test_without_log_probabilities_a_peer_is_not_called_equal(job):
  contenders = {"ours": Contender("ours", ""), "peer": Contender("peer", "", "simpo")}
  verdicts = compare(contenders, {"ours": check(2.0, 1.9), "peer": check(5.0, 1.0)}, job)
  assert {name: verdict.word for name, verdict in verdicts.items()} == {"ours": "yes", "peer": "unchecked"}
  assert not verdicts["peer"].is_equal
