"""The jobs of a study.

A seed begins with a base of its own, which learned in one context, where a step shows the most different pairs, to
answer like the responders of a world that nobody else sees: what a base makes of itself moves differences between
methods as much as the records do. A seed has a world of its own. Its arms begin at one start, made of the base by
supervised fine-tuning in all contexts, on records that they never see. Every step of theirs takes the same number of
pairs, in as many micro-batches as it sees contexts of a pair, and they take the same number of steps, unless their
method says otherwise. Every policy answers in all contexts.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from amopo_jax.lab.given import Given, contents, take_data, take_start
from amopo_jax.lab.graders import DIMENSIONS
from amopo_jax.lab.methods import ALL, EACH, OVERALL, PLAIN, TOLD
from amopo_jax.lab.pool import Answer, Job
from amopo_jax.lab.spec import WorldSpec
from amopo_jax.lab.studies import Arm, Ground, Size, Study
from amopo_jax.lab.work import make_answers, make_policy, make_soup, make_world
from amopo_jax.run_codec import from_dict, to_dict
from amopo_jax.run_spec import RunSpec
from amopo_jax.types import InputError

START, _RATE = "start", "optim.learning_rate"
_BASE_SEED = 20_000
"""Of the world of the first seed's base, far from those of the seeds."""


def jobs_of(study: Study, start: RunSpec, run: RunSpec, size: Size, given: Given | None = None) -> list[Job]:
  """The jobs of a study.

  Args:
    study: what to compare.
    start: the config of the start.
    run: the config of AMoPO; methods change it.
    size: how much of it.
    given: model, records and judge that take the place of worlds, base and start.

  Raises:
    InputError: the config's contexts are not the lab's, or what is given has not what the study turns.
  """
  _check_contexts(run)
  if given:
    return _jobs_of_given(study, run, size, given)
  origins = {arm.ground.origin.name: arm.ground.origin for arm in study.arms}
  by_name = origins | {arm.ground.name: arm.ground for arm in study.arms}
  places = _places(sorted(by_name.values(), key=lambda ground: ground != Ground()))
  maker = _Maker(study, start, run, size, places)
  jobs = []
  for seed in range(study.first_seed, study.first_seed + size.seeds):
    jobs += [_base_world(by_name[name], seed, size) for name in dict.fromkeys(places[name] for name in origins)]
    jobs += [maker.base(ground, seed) for ground in origins.values()]
    jobs += [_world(by_name[name], seed, size) for name in dict.fromkeys(places.values())]
    policies = [maker.start(ground, seed) for ground in origins.values()]
    policies += [maker.arm(arm, seed) for arm in study.arms]
    jobs += policies + [_questions(policy, study.scores) for policy in policies if study.scores]
  return jobs


def _jobs_of_given(study: Study, run: RunSpec, size: Size, given: Given) -> list[Job]:
  """Each seed has a choice of the records; all arms begin with the model."""
  if any(arm.ground != Ground() for arm in study.arms):
    raise InputError(f"{study.name}: changes worlds or the policy's size; with --judge choose a study of methods alone")
  run = from_dict(change(to_dict(run), {"data.tokenizer": ""}))  # the model's own
  maker = _Maker(at_given_rate(study), run, run, size, {Ground().name: Ground().name}, judge=given.judge)
  jobs = []
  for seed in range(study.first_seed, study.first_seed + size.seeds):
    asked = {"seed": seed, "train": given.train, "heldout": given.heldout}
    asked |= {"num_train": size.train, "num_heldout": size.heldout, "contents": contents(given)}
    world = Job(_world_name(Ground().name, seed), take_data, asked)
    policies = [maker.given_start(given.model, seed), *(maker.arm(arm, seed) for arm in study.arms)]
    jobs += [world, *policies, *(_questions(policy, study.scores) for policy in policies if study.scores)]
  return jobs


def at_given_rate(study: Study) -> Study:
  """At the config's learning rate, but where rates are compared: those of methods are for the lab's own policy."""
  if study.name.startswith("rates"):
    return study
  plain = lambda method: method._replace(changes={key: of for key, of in method.changes.items() if key != _RATE})
  return study._replace(methods={name: plain(method) for name, method in study.methods.items()})


def _check_contexts(run: RunSpec) -> None:
  missing = [name for name in (OVERALL, *DIMENSIONS) if name not in run.data.contexts]
  if missing:
    raise InputError(
      f"config.data.contexts: {missing[0]} is missing; a study asks for {OVERALL} and {', '.join(DIMENSIONS)}"
    )


def with_asked(answers: Mapping[str, Answer]) -> dict[str, Answer]:
  """Answers of `jobs_of`'s jobs, those of policies with what they answered where other scores were asked for."""
  asked = lambda name: answers.get(_asked_name(name), {}).get("asked", {})
  return {name: answer | {"asked": asked(name)} if _is_policy(name) else answer for name, answer in answers.items()}


def _places(grounds: Sequence[Ground]) -> dict[str, str]:
  """Ground -> ground under whose name its world is written; grounds that share one write it once."""
  first: dict[WorldSpec, str] = {}
  return {ground.name: first.setdefault(ground.world, ground.name) for ground in grounds}


def _world(ground: Ground, seed: int, size: Size) -> Job:
  asked = {"seed": seed, "start": size.start_records, "train": size.train, "heldout": size.heldout}
  asked |= {"spec": dataclasses.asdict(ground.world)}
  return Job(_world_name(ground.name, seed), make_world, json.loads(json.dumps(asked)))


def _base_world(ground: Ground, seed: int, size: Size) -> Job:
  asked = _world(ground, _BASE_SEED + seed, size).asked
  return Job(_base_world_name(ground.name, seed), make_world, {**asked, "train": 1})


class _Maker:
  """Makes the jobs that train."""

  def __init__(
    self, study: Study, start: RunSpec, run: RunSpec, size: Size, places: Mapping[str, str], *, judge: str = ""
  ):
    self._study, self._start, self._run, self._size, self._places = study, to_dict(start), to_dict(run), size, places
    self._judge = judge

  def base(self, ground: Ground, seed: int) -> Job:
    """Supervised fine-tuning of random weights in one context.

    Its prompt is the same for both responses, so that a row teaches twice as many as one of the start's.
    """
    changes = {"train.steps": self._size.base_steps, "seed": _BASE_SEED + seed}
    changes |= {"data.rule": "derived", "objective.name": "sft_both"}
    changes |= {f"batch.{name}": self._start["batch"][name] // 2 for name in ("rows", "accumulation")}
    spec, world = change(self._start, {**ground.changes, **changes}), _base_world_name(self._places[ground.name], seed)
    contexts = _contexts(OVERALL, spec["data"]["contexts"])
    asked = {"run": spec, "contexts": contexts, "world": world, "records": "start", "start": "", "rival": ""}
    return Job(_base_name(ground, seed), make_policy, asked | {"ask": self._ask(seed) | {"draws": 1}}, (world,))

  def start(self, ground: Ground, seed: int) -> Job:
    """Supervised fine-tuning of the base in all contexts."""
    changes = {"train.steps": self._size.start_steps, "seed": seed}
    spec, world = change(self._start, {**ground.changes, **changes}), self._world(ground, seed)
    base, contexts = _base_name(ground, seed), spec["data"]["contexts"]
    asked = {"run": spec, "contexts": contexts, "world": world, "records": "start", "start": base, "rival": ""}
    return Job(_start_name(ground, seed), make_policy, asked | {"ask": self._ask(seed)}, (world, base))

  def given_start(self, model: str, seed: int) -> Job:
    """A model that is there."""
    world = self._world(Ground(), seed)
    asked = {"model": model, "run": self._run, "world": world, "ask": self._ask(seed)}
    return Job(_start_name(Ground(), seed), take_start, asked, (world,))

  def arm(self, arm: Arm, seed: int) -> Job:
    """What follows."""
    method, ground = self._study.methods[arm.method], arm.ground
    start, world = _start_name(ground.origin, seed), self._world(ground, seed)
    changes = {key: value for key, value in ground.changes.items() if key != "model.arch"} | dict(method.changes)
    steps = {"train.steps": round(self._size.steps * method.work), "seed": 1000 + seed, "train.log_every": 1}
    if method.contexts == TOLD:
      changes["data.contexts"] = _contexts(TOLD, self._run["data"]["contexts"])
    spec = change(self._run, {**changes, **steps})
    asked = {"run": spec, "world": world, "start": start, "ask": self._ask(seed)}
    if method.soup:
      of = [f"seed{seed}/{Arm(name, ground).name}" for name in method.soup]
      return Job(f"seed{seed}/{arm.name}", make_soup, asked | {"of": of}, (world, start, *of))
    every = spec["data"]["contexts"]
    contexts = _contexts(method.contexts, every)
    in_step = min(spec["data"]["contexts_per_pair"] or len(contexts), len(contexts))
    rows, most = (spec["batch"][name] for name in ("group_rows", "max_pairs"))
    sizes = {"group_rows": math.ceil(rows * method.pairs), "max_pairs": round(most * method.pairs)}
    sizes |= {"rows": sizes["group_rows"] * in_step, "accumulation": in_step}
    asked["run"] = change(spec, {f"batch.{name}": size for name, size in sizes.items()})
    asked |= {"contexts": contexts, "records": "files", "rival": start}
    return Job(f"seed{seed}/{arm.name}", make_policy, asked, (world, start))

  def _world(self, ground: Ground, seed: int) -> str:
    return _world_name(self._places[ground.name], seed)

  def _ask(self, seed: int) -> dict[str, Any]:
    judge = {"judge": self._judge} if self._judge else {}
    return {"max_new": self._size.max_new, "draws": self._size.draws, "seed": seed, **judge}


def _questions(policy: Job, scores: Sequence[float]) -> Job:
  """Asks a policy for scores; a job of its own, so that studies that ask for none have the policy in common."""
  asked = {key: policy.asked[key] for key in ("run", "world", "ask")} | {"policy": policy.name, "scores": list(scores)}
  return Job(_asked_name(policy.name), make_answers, asked, (policy.asked["world"], policy.name))


def _is_policy(name: str) -> bool:
  return name.startswith("seed")


def _asked_name(policy: str) -> str:
  return f"asked{policy.removeprefix('seed')}"


def _world_name(ground: str, seed: int) -> str:
  return f"worlds/{ground}-{seed}"


def _base_name(ground: Ground, seed: int) -> str:
  return f"base/{ground.name}-{seed}"


def _base_world_name(ground: str, seed: int) -> str:
  return f"base/world-{ground}-{seed}"


def _start_name(ground: Ground, seed: int) -> str:
  return f"seed{seed}/{START}" if ground.name == "default" else f"seed{seed}/{START}@{ground.name}"


def _contexts(group: str, every: Mapping[str, Any]) -> dict[str, Any]:
  """Of a method: see `methods`."""
  if group == TOLD:  # it takes the place of the context that asks for everything, also where it is asked
    each = " ".join(f"{name.replace('_', ' ')} score {{score:{name}}}" for name in DIMENSIONS)
    ends = {key: every[DIMENSIONS[0]][key] for key in ("low", "high")}
    return {OVERALL: {**every[OVERALL], "template": f"focus on {each} .", **ends}}
  if group == PLAIN:
    template = every[OVERALL]["template"]
    return {f"plain_{name}": {**every[name], "template": template} for name in DIMENSIONS}
  names = {ALL: [OVERALL, *DIMENSIONS], EACH: list(DIMENSIONS)}.get(group, [group])
  return {name: every[name] for name in names}


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
