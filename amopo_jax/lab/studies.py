"""The studies: which methods are compared, and on which grounds."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from amopo_jax.lab.domains import DOMAINS
from amopo_jax.lab.methods import DIALOGUE, MARGINS, METHODS, RATES, TIES, WEIGHTS, Method
from amopo_jax.lab.spec import DEFAULT_SPEC, WorldSpec
from amopo_jax.types import InputError


class Ground(NamedTuple):
  """What a start and its arms share.

  Attributes:
    name: of its folders.
    world: dials of the world.
    changes: of the config's keys, for the start and the arms alike.
  """

  name: str = "default"
  world: WorldSpec = DEFAULT_SPEC
  changes: Mapping[str, Any] = MappingProxyType({})

  @property
  def origin(self) -> "Ground":
    """Where base and start are made: worlds that differ in ties, inversions and noise alone have them in common."""
    kept = {name: getattr(DEFAULT_SPEC, name) for name in ("tied", "inverted", "noise")}
    world = dataclasses.replace(self.world, **kept)
    return Ground() if world == DEFAULT_SPEC and not self.changes else self._replace(world=world)


class Arm(NamedTuple):
  """A method on a ground."""

  method: str
  ground: Ground = Ground()

  @property
  def name(self) -> str:
    """Of its folder and its row."""
    return self.method if self.ground.name == "default" else f"{self.method}@{self.ground.name}"


class Study(NamedTuple):
  """One question.

  Attributes:
    name: of the folder of its report.
    title: of the report.
    methods: by name.
    arms: in the order of the table; the first is what the others are compared with.
    scores: to ask for, beside the highest.
    first_seed: number of the first of its worlds; what is chosen by a study is not judged on the same worlds.
  """

  name: str
  title: str
  methods: Mapping[str, Method]
  arms: tuple[Arm, ...]
  scores: tuple[float, ...] = ()
  first_seed: int = 0


class Size(NamedTuple):
  """How much a study does.

  Attributes:
    seeds: worlds, and runs of each arm.
    start_records: that a start is trained on, and as many others for a base.
    train, heldout: records of a world.
    base_steps, start_steps, steps: of a base, of a start, and of an arm.
    max_new: tokens of a response.
    draws: sampled responses to a question.
  """

  seeds: int
  start_records: int = 16_000
  train: int = 4000
  heldout: int = 200
  base_steps: int = 800
  start_steps: int = 300
  steps: int = 100
  max_new: int = 32
  draws: int = 4


SMOKE = Size(seeds=1, start_records=64, train=64, heldout=8, base_steps=2, start_steps=2, steps=2, max_new=8, draws=1)
"""As little as it can be."""

_SHOWN = ("amopo", "simpo_equal", "dpo", "raco")
"""Arms that go different ways through the system: contexts, work, a reference, gradients of their own."""


def shortened(study: Study) -> Study:
  """The study with four of its arms: the first, those of `_SHOWN`, then any."""
  shown = [place for place, arm in enumerate(study.arms) if arm.method in _SHOWN]
  places = list(dict.fromkeys([0, *shown, *range(len(study.arms))]))[:4]
  return study._replace(arms=tuple(study.arms[place] for place in sorted(places)))


def chosen(study: Study, names: Sequence[str]) -> Study:
  """The study with these of its arms, in its order, and a report of its own.

  Raises:
    InputError: it has no such arm, or averages policies of arms that are left out.
  """
  arms = {arm.name: arm for arm in study.arms}
  unknown = [name for name in names if name not in arms]
  if unknown:
    raise InputError(f"{study.name} has no arm {unknown[0]!r}; choose among {', '.join(arms)}")
  found = tuple(arm for name, arm in arms.items() if name in names)
  for arm in found:
    missing = [name for name in study.methods[arm.method].soup if name not in names]
    if missing:
      raise InputError(f"{arm.name} averages {', '.join(missing)}, which --arms leaves out")
  return study._replace(name=f"{study.name}-some", arms=found)


def _on(grounds: Sequence[Ground], methods: Sequence[str]) -> tuple[Arm, ...]:
  return tuple(Arm(method, ground) for ground in grounds for method in methods)


def _world(name: str, **dials: Any) -> Ground:
  """The default ground where the dials stand as they do there: studies in one folder share its policies."""
  world = dataclasses.replace(DEFAULT_SPEC, **dials)
  return Ground() if world == DEFAULT_SPEC else Ground(name, world)


def _worlds(dial: str, values: Sequence[float]) -> list[Ground]:
  return [_world(f"{dial}-{value:g}", **{dial: value}) for value in values]


_DIALOGUE = Ground("dialogue", dataclasses.replace(DEFAULT_SPEC, turns=2), {"batch.row_length": 256})
"""Two questions and an answer between them need longer rows."""


def _size(width: int, layers: int) -> Ground:
  """A policy of some width and number of layers; heads of 32."""
  shape = {"hidden_size": width, "num_attention_heads": width // 32, "num_hidden_layers": layers}
  return Ground(f"{width}x{layers}", changes={"model.arch": shape | {"intermediate_size": 3 * width}})


_ALL = (
  Study("baselines", "AMoPO and its baselines", METHODS, _on([Ground()], tuple(METHODS))),
  Study("weights", "Weights over contexts", WEIGHTS, _on([Ground()], tuple(WEIGHTS))),
  Study("rates", "Learning rates", RATES, _on([Ground()], tuple(RATES)), first_seed=100),
  Study("margins", "The target margin (0.5 where nothing is said)", MARGINS, _on([Ground()], tuple(MARGINS))),
  Study(
    "ties",
    "Ties and inversions (a quarter is inverted where nothing is said)",
    TIES,
    _on(_worlds("inverted", (0.1, 0.25, 0.5)), tuple(TIES)),
  ),
  Study(
    "noise",
    "Corrupted scores (none where nothing is said)",
    METHODS,
    _on(_worlds("noise", (0.0, 0.1, 0.2, 0.3)), ("amopo", "uniform", "simpo")),
  ),
  Study(
    "capacity",
    "The size of the policy (128x4 where nothing is said)",
    METHODS,
    _on([_size(64, 2), _size(96, 3), Ground(), _size(192, 5)], ("amopo", "simpo")),
  ),
  Study(
    "domains",
    "What the tasks are about (text where nothing is said)",
    METHODS,
    _on([_world(name, domain=name) for name in DOMAINS], ("amopo", "uniform", "simpo")),
  ),
  Study("dialogue", "Weights per turn of a dialogue", DIALOGUE, _on([_DIALOGUE], tuple(DIALOGUE))),
  Study(
    "template",
    "Instruction after the question (before it where nothing is said)",
    METHODS,
    _on([Ground(), Ground("after", changes={"data.place": "after"})], ("amopo", "simpo")),
  ),
  Study(
    "steering",
    "Asking for a score",
    METHODS,
    _on([Ground()], ("amopo", "uniform", "scored_sft", "controllable")),
    scores=(0.0, 1.0, 2.0, 3.0),
  ),
)

STUDIES: Mapping[str, Study] = MappingProxyType({study.name: study for study in _ALL})
"""By name."""
