"""The jobs of a study.

Arms of a seed begin at one start, which supervised fine-tuning on the chosen responses made; they see the same pairs
in the same order and take the same number of steps, unless their method says otherwise.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.methods import ALL, EACH, OVERALL
from amopo_jax.lab.pool import Job
from amopo_jax.lab.spec import WorldSpec
from amopo_jax.lab.studies import Arm, Ground, Size, Study
from amopo_jax.lab.work import make_policy, make_soup, make_world
from amopo_jax.run_codec import from_dict, to_dict
from amopo_jax.run_spec import RunSpec
from amopo_jax.types import InputError

START = "start"


def jobs_of(study: Study, start: RunSpec, run: RunSpec, size: Size) -> list[Job]:
  """The jobs of a study.

  Args:
    study: what to compare.
    start: the config of the start.
    run: the config of AMoPO; methods change it.
    size: how much of it.
  """
  grounds = list(dict.fromkeys(arm.ground.name for arm in study.arms))
  by_name = {arm.ground.name: arm.ground for arm in study.arms}
  jobs = [_world(by_name[name], size) for name in _distinct_worlds([by_name[name] for name in grounds])]
  maker = _Maker(study, start, run, size, _places([by_name[name] for name in grounds]))
  for seed in range(size.seeds):
    jobs += [maker.start(by_name[name], seed) for name in grounds]
    jobs += [maker.arm(arm, seed) for arm in study.arms]
  return jobs


def _places(grounds: Sequence[Ground]) -> dict[str, str]:
  """Ground -> job of its world; grounds that share one write it once."""
  first: dict[WorldSpec, str] = {}
  return {ground.name: f"worlds/{first.setdefault(ground.world, ground.name)}" for ground in grounds}


def _distinct_worlds(grounds: Sequence[Ground]) -> list[str]:
  return list(dict.fromkeys(place.removeprefix("worlds/") for place in _places(grounds).values()))


def _world(ground: Ground, size: Size) -> Job:
  asked = {"seed": 0, "train": size.train, "heldout": size.heldout, "spec": dataclasses.asdict(ground.world)}
  return Job(f"worlds/{ground.name}", make_world, json.loads(json.dumps(asked)))


class _Maker:
  """Makes the jobs that train."""

  def __init__(self, study: Study, start: RunSpec, run: RunSpec, size: Size, worlds: Mapping[str, str]):
    self._study, self._start, self._run, self._size, self._worlds = study, to_dict(start), to_dict(run), size, worlds

  def start(self, ground: Ground, seed: int) -> Job:
    """Supervised fine-tuning."""
    changes = {"train.steps": self._size.start_steps, "seed": seed}
    spec = change(self._start, {**ground.changes, **changes})
    asked = {"run": spec, "world": self._worlds[ground.name], "start": "", "ask": self._ask(ALL, ())}
    return Job(_start_name(ground, seed), make_policy, asked, (self._worlds[ground.name],))

  def arm(self, arm: Arm, seed: int) -> Job:
    """What follows."""
    method, ground = self._study.methods[arm.method], arm.ground
    start, world = _start_name(ground, seed), self._worlds[ground.name]
    changes = {key: value for key, value in ground.changes.items() if key != "model.arch"} | dict(method.changes)
    steps = {"train.steps": self._size.steps * method.work, "seed": 1000 + seed}
    spec = change(self._run, {**changes, **steps})
    asked = {"run": spec, "world": world, "start": start, "ask": self._ask(method.contexts, self._study.scores)}
    if method.soup:
      of = [f"seed{seed}/{Arm(name, ground).name}" for name in method.soup]
      return Job(f"seed{seed}/{arm.name}", make_soup, asked | {"of": of}, (world, start, *of))
    spec["data"]["contexts"] = {name: spec["data"]["contexts"][name] for name in _context_names(method.contexts)}
    return Job(f"seed{seed}/{arm.name}", make_policy, asked, (world, start))

  def _ask(self, contexts: str, scores: Sequence[float]) -> dict[str, Any]:
    return {"contexts": _context_names(contexts), "scores": list(scores), "max_new": self._size.max_new}


def _start_name(ground: Ground, seed: int) -> str:
  return f"seed{seed}/{START}" if ground.name == "default" else f"seed{seed}/{START}@{ground.name}"


def _context_names(contexts: str) -> list[str]:
  groups = {ALL: [OVERALL, *DIMENSIONS], EACH: list(DIMENSIONS)}
  return groups.get(contexts, [contexts])


def change(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
  """A run with other values of some keys.

  Raises:
    InputError: no such key, or a value that it cannot have.
  """
  found = json.loads(json.dumps(spec))
  for key, value in changes.items():
    section, _, name = key.rpartition(".")
    node = found[section] if section else found
    if name not in node:
      raise InputError(f"config.{key}: unknown key")
    node[name] = {**node[name], **value} if isinstance(value, Mapping) else value
  return to_dict(from_dict(found))
