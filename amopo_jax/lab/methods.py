"""What the studies compare: each method as changes of config keys, trained from the same start.

overall   one context that asks for everything: what methods for a single preference see
all       that and one context per dimension: what AMoPO and its kin see; K times the sequences of a pair
each      those of the dimensions alone, for methods that need a score in every context
told      one context that tells the scores in all dimensions
plain     a context per dimension that all ask for everything: each dimension's order of the same prompt's responses
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.objective.alpha import ALPHAS, WHOLE_BATCH

OVERALL, ALL, EACH, TOLD, PLAIN = "overall", "all", "each", "told", "plain"


class Method(NamedTuple):
  """One way to go on from the start.

  Attributes:
    label: in the report.
    changes: of the config's keys, as "objective.name".
    contexts: OVERALL, ALL, EACH, TOLD, PLAIN, or the name of a dimension.
    work: steps, as a multiple of the other methods'.
    pairs: of a step, as a multiple of the other methods'.
    soup: methods whose parameters are averaged instead of training anything.
  """

  label: str
  changes: Mapping[str, Any] = MappingProxyType({})
  contexts: str = OVERALL
  work: float = 1
  pairs: float = 1
  soup: tuple[str, ...] = ()


def _loss(label: str, name: str, contexts: str = OVERALL, work: float = 1, **keys: Any) -> Method:
  """An objective by name, without what belongs to AMoPO; a key that is None is left as the config has it."""
  plain = {"alpha": "gaussian", "ties": "keep", "sft_weight": 0.0, "target_margin": 0.0}
  changes = {f"objective.{key}": value for key, value in (plain | {"name": name} | keys).items() if value is not None}
  return Method(label, MappingProxyType(changes), contexts, work)


def _weighted(label: str, alpha: str, contexts: str = ALL, work: float = 1, **keys: Any) -> Method:
  """AMoPO as the config has it, with other weights over contexts."""
  return Method(
    label, MappingProxyType({f"objective.{key}": v for key, v in {"alpha": alpha, **keys}.items()}), contexts, work
  )


_EQUAL = 3.6
"""Pairs in one context that are as many sequences as AMoPO lays out of one in four, as what it masks is left out."""

SINGLES = {f"only_{name}": _weighted(f"AMoPO on {name} alone", "uniform", name) for name in DIMENSIONS}

_DRAWN = {"objective.alpha": "uniform", "data.contexts_per_pair": 1}
"""A step looks at each pair in one of the contexts whose term counts, drawn anew each time."""


def _at_rate(method: Method, rate: float) -> Method:
  changes = MappingProxyType({"optim.learning_rate": rate, **method.changes})
  return method._replace(changes=changes)


_RATES = {
  "simpo_equal": 3e-5,
  **dict.fromkeys(("released", "simpo", "simpo_contexts", "dpo", "r_dpo", "lambda_dpo", "raco"), 1e-4),
  "modpo": 2e-4,
  **dict.fromkeys(("ipo", "slic", "controllable"), 3e-4),
  "kto": 6e-4,
  "scored_sft": 3e-3,
}
"""Learning rates of the methods for which that of `configs/lab.py`, AMoPO's, is not the best (study `rates`).

They are the best by the mean true score of sampled responses in the context that asks for everything; of CDPO, which is
not trained in it, in those that it is trained in. That of `simpo_equal` is SimPO's lowest, as it takes more steps.
"""

# All at the rate of configs/lab.py.
_UNTUNED: Mapping[str, Method] = MappingProxyType(
  {
    "amopo": _weighted("AMoPO, Gaussian weights", "gaussian"),
    "uniform": _weighted("AMoPO, uniform weights", "uniform"),
    "released": _weighted(
      "AMoPO, ties and inversions kept, no supervised term", "gaussian", ties="keep", sft_weight=0.0
    ),
    **SINGLES,
    "soup": Method("soup of those alone", contexts=ALL, soup=tuple(SINGLES)),
    "simpo": _loss("SimPO", "simpo", target_margin=None),
    "simpo_equal": _loss("SimPO, compute of AMoPO", "simpo", work=_EQUAL, target_margin=None),
    "simpo_contexts": _loss("SimPO in the same contexts", "simpo", ALL, target_margin=None),
    "one_context": _weighted("SimPO with a supervised term (AMoPO in one context)", "uniform", OVERALL),
    "one_context_equal": _weighted("SimPO with a supervised term, compute of AMoPO", "uniform", OVERALL, _EQUAL),
    "one_context_wide": _weighted(
      "SimPO with a supervised term, compute of AMoPO in pairs per step", "uniform", OVERALL
    )._replace(pairs=_EQUAL),
    "drawn": Method("AMoPO, one context drawn per pair", MappingProxyType(_DRAWN), ALL),
    "drawn_equal": Method("AMoPO, one context drawn per pair, compute of AMoPO", MappingProxyType(_DRAWN), ALL, _EQUAL),
    "drawn_wide": Method(
      "AMoPO, one context drawn per pair, compute of AMoPO in pairs per step", MappingProxyType(_DRAWN), ALL
    )._replace(pairs=_EQUAL),
    "dpo": _loss("DPO", "dpo", beta=0.1),
    "ipo": _loss("IPO", "ipo", beta=0.5),
    "kto": _loss("KTO, z of the pair", "kto", beta=0.1),
    "r_dpo": _loss("R-DPO", "r_dpo", beta=0.1, length_weight=0.02),
    "orpo": _loss("ORPO", "orpo", ratio_weight=0.5),
    "cpo": _loss("CPO", "cpo", beta=0.1, sft_weight=1.0),
    "cpo_equal": _loss("CPO, compute of AMoPO", "cpo", work=_EQUAL, beta=0.1, sft_weight=1.0),
    "slic": _loss("SLiC-HF", "slic", beta=1.0, target_margin=1.0, sft_weight=0.2),
    "rrhf": _loss("RRHF", "rrhf", sft_weight=1.0),
    "lambda_dpo": _loss("λ-weighted DPO", "lambda_dpo", PLAIN, beta=0.1, alpha="simplex", ties="follow_dimension"),
    "modpo": _loss("MODPO", "modpo", PLAIN, beta=0.1, gap_margin=0.5),
    "raco": _loss("RACO", "lambda_dpo", PLAIN, beta=0.1, alpha="uniform", ties="follow_dimension", conflict_radius=0.4),
    "controllable": Method(
      "CDPO, the second stage of controllable preference optimisation",
      MappingProxyType(
        {
          **_loss("", "lambda_dpo", beta=0.1, alpha="uniform", ties="mask_equal").changes,
          "data.rule": "both_ways",
        }
      ),
      EACH,
    ),
    "scored_sft": Method(
      "score-conditioned SFT, all scores told",
      MappingProxyType({**_loss("", "sft").changes, "data.rule": "both_ways"}),
      TOLD,
    ),
    "more_sft": _loss("more SFT", "sft"),
    "more_sft_equal": _loss("more SFT, compute of AMoPO", "sft", work=2 * _EQUAL),  # of chosen responses alone
  }
)

METHODS: Mapping[str, Method] = MappingProxyType(
  {name: _at_rate(method, _RATES[name]) if name in _RATES else method for name, method in _UNTUNED.items()}
)
"""The baselines by name; the first is what the others are compared with."""

_ONE_CONTEXT = ("drawn", "drawn_equal", "drawn_wide", "one_context", "one_context_equal", "one_context_wide")

WEIGHTS: Mapping[str, Method] = MappingProxyType(
  {name: _weighted(f"α: {name}", name) for name in ALPHAS if name not in WHOLE_BATCH}
  | {
    "easiest": Method("α: the smaller loss", {"objective.alpha": "uniform", "objective.loss_power": -1.0}, ALL),
    "hardest": Method("α: the larger loss", {"objective.alpha": "uniform", "objective.loss_power": 1.0}, ALL),
    "widest": Method("α: the wider gap", {"objective.alpha": "uniform", "objective.gap_power": 1.0}, ALL),
    "learned": Method("α: learned variances", {"objective.alpha": "uniform", "objective.uncertainty_rate": 0.1}, ALL),
    **{name: METHODS[name] for name in _ONE_CONTEXT},
  }
)

_TUNED = (
  *("amopo", "released", "one_context", "drawn", "simpo", "dpo", "ipo", "kto", "r_dpo", "orpo", "cpo", "slic", "rrhf"),
  *("lambda_dpo", "modpo", "raco", "controllable", "scored_sft", "more_sft"),
)
"""Methods of which each may want a learning rate of its own; the others are variants of these."""


def _tried(name: str, rate: float) -> Method:
  method = _UNTUNED[name]
  return _at_rate(method, rate)._replace(label=f"{method.label}, rate {rate:g}")


_FASTER = ("amopo", "one_context", "drawn", "kto", "orpo", "cpo", "rrhf", "scored_sft", "more_sft")
"""Methods that were best at 1e-3."""

_SLOWER = ("released", "simpo", "dpo", "r_dpo", "raco")
"""Methods that were best at 3e-5 where all seeds had one base."""

_BETWEEN: Mapping[float, tuple[str, ...]] = MappingProxyType(
  {
    6e-5: ("released", "simpo", "dpo", "r_dpo", "slic", "lambda_dpo", "modpo", "raco"),
    2e-4: ("ipo", "modpo"),
    6e-4: ("amopo", "one_context", "kto"),
  }
)
"""Rates between those of the grid, near the best."""

RATES: Mapping[str, Method] = MappingProxyType(
  {f"{name}_{rate:g}": _tried(name, rate) for name in _TUNED for rate in (3e-5, 1e-4, 3e-4, 1e-3)}
  | {f"{name}_0.003": _tried(name, 3e-3) for name in _FASTER}
  | {f"{name}_1e-05": _tried(name, 1e-5) for name in _SLOWER}
  | {f"{name}_{rate:g}": _tried(name, rate) for rate, names in _BETWEEN.items() for name in names}
)
"""Half a decade apart, and some a quarter."""

MARGINS: Mapping[str, Method] = MappingProxyType(
  {"amopo": METHODS["amopo"]}
  | {f"gamma_{gamma}": Method(f"γ = {gamma}", {"objective.target_margin": gamma}, ALL) for gamma in (0.0, 1.0, 2.0)}
  | {name: METHODS[name] for name in ("uniform", "simpo", "simpo_equal", "one_context", "dpo", "orpo")}
)
"""Whose margins are looked at over training; AMoPO itself has γ = 0.5."""

DIALOGUE: Mapping[str, Method] = MappingProxyType(
  {
    **{name: METHODS[name] for name in ("amopo", "uniform", "simpo")},
    "amopo_turn": Method(
      "AMoPO, Gaussian weights per turn", {"objective.alpha": "gaussian", "objective.per_turn": True}, ALL
    ),
    "uniform_turn": Method(
      "AMoPO, uniform weights per turn", {"objective.alpha": "uniform", "objective.per_turn": True}, ALL
    ),
  }
)

TIES: Mapping[str, Method] = MappingProxyType(
  {name: Method(f"ties: {name}", {"objective.ties": name}, ALL) for name in ("keep", "mask_ties", "follow_dimension")}
)
