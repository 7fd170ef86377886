"""From a config's data, batch and contexts to pairs that can be packed; everything that can be wrong is found here."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from amopo_jax.data.adapters import ADAPTERS
from amopo_jax.data.contexts import PLACES, Context, ContextSpec
from amopo_jax.data.dataset import PairDataset, Recipe
from amopo_jax.data.encode import POLICIES, Limits
from amopo_jax.data.layout import EVERYTHING, Layout
from amopo_jax.data.pack import PackSpec
from amopo_jax.data.pairs import RULES, Rule
from amopo_jax.data.sources import ON_ERROR, open_source
from amopo_jax.data.split import split_by_prompt
from amopo_jax.data.survey import Survey, survey
from amopo_jax.data.tokenizer import Tokenizer, load_tokenizer
from amopo_jax.models.hf_files import resolve_model
from amopo_jax.policy import PolicySource
from amopo_jax.remote import local_folder
from amopo_jax.run_spec import BatchSpec, ContextEntry, DataSpec, RunSpec, SourceSpec, check_name
from amopo_jax.types import InputError

TOKENS_PER_PAIR = 16
"""With `max_pairs = 0`, places for pairs are made for pairs of this many tokens in all contexts together."""


class Data(NamedTuple):
  """The pairs of a run.

  Attributes:
    train: one data set per source.
    weights: share of the draws of each; None with a single one.
    heldout: likewise, for evaluation; empty without one.
    surveys: what the pass over each source found, by name.
    tokenizer: of all of them.
    contexts: of all of them.
    pack: shape of a group of rows.
  """

  train: list[PairDataset]
  weights: list[float] | None
  heldout: list[PairDataset]
  surveys: dict[str, Survey]
  tokenizer: Tokenizer
  contexts: ContextSpec
  pack: PackSpec


class DataPlan(NamedTuple):
  """What a config says of the data.

  Attributes:
    contexts: the K contexts.
    pack: shape of a group of rows.
    limits: how long a sequence may be.
  """

  contexts: ContextSpec
  pack: PackSpec
  limits: Limits


def plan_data(spec: RunSpec) -> DataPlan:
  """Checks all that can be checked without opening a file.

  Raises:
    InputError: an unknown name, a context, length or share that cannot be.
  """
  data, batch = spec.data, spec.batch
  if not data.train:
    raise InputError("config.data.train: no data set; add one with base.source(path, format)")
  for section, entries in (("train", data.train), ("heldout", data.heldout)):
    for name, entry in entries.items():
      _check_source(f"config.data.{section}.{name}", entry)
  check_name("config.data.rule", data.rule, RULES)
  check_name("config.data.on_error", data.on_error, ON_ERROR)
  check_name("config.data.too_long", data.too_long, POLICIES)
  check_name("config.data.place", data.place, PLACES)
  if not 0 <= data.heldout_fraction < 1:
    raise InputError(f"config.data.heldout_fraction: {data.heldout_fraction} is not in [0, 1)")
  contexts = build_contexts(data.contexts, data.place)
  if not 0 <= data.contexts_per_pair <= len(contexts.contexts):
    raise InputError(f"config.data.contexts_per_pair: {data.contexts_per_pair} is not in 0 to {len(contexts.contexts)}")
  max_length = data.max_length or batch.row_length
  if max_length > batch.row_length:
    raise InputError(f"config.data.max_length: {max_length} is longer than a row, batch.row_length={batch.row_length}")
  limits = Limits(max_length, data.max_response or max_length // 2, data.too_long)
  return DataPlan(contexts, pack_spec(batch, len(contexts.contexts)), limits)


def build_contexts(entries: Mapping[str, ContextEntry], place: str) -> ContextSpec:
  """The contexts in the order of the config."""
  if not entries:
    raise InputError("config.data.contexts: none given; add one with base.context(dimension, template, low, high)")
  try:
    return ContextSpec(tuple(_build_context(name, entry) for name, entry in entries.items()), place)
  except InputError as error:
    raise InputError(f"config.data.{error}") from None


def _build_context(name: str, entry: ContextEntry) -> Context:
  """A context that tells no score has no range, whatever the entry's defaults are."""
  context = Context(name, entry.dimension or None, entry.template)
  return dataclasses.replace(context, low=entry.low, high=entry.high) if context.told else context


def build_data(
  spec: RunSpec,
  source: PolicySource,
  *,
  rules: Mapping[str, Rule] = RULES,
  layout: Layout = EVERYTHING,
) -> Data:
  """Opens and surveys every source.

  Args:
    spec: the config.
    source: brings the tokenizer where the config names none.
    rules: what the names of `config.data.rule` stand for.
    layout: of the training pairs; of a held-out one, all sequences are laid out.

  Raises:
    InputError: anything wrong with a record, a context, a limit or the tokenizer.
  """
  plan = plan_data(spec)
  tokenizer = build_tokenizer(spec.data, source)
  recipe = lambda entry: _recipe(spec.data, entry, plan, tokenizer, rules[spec.data.rule])
  train, heldout, surveys, sides = [], [], {}, {}
  fraction = 0.0 if spec.data.heldout else spec.data.heldout_fraction
  for name, entry in spec.data.train.items():
    dataset, surveys[name] = _open(recipe(entry), spec)
    kept, out = split_by_prompt(dataset, fraction, seed=spec.data.split_seed, sides=sides)
    train.append(kept)
    heldout += [out] if len(out) else []
  for name, entry in spec.data.heldout.items():
    dataset, surveys[f"heldout {name}"] = _open(recipe(entry), spec)
    heldout.append(dataset)
  train, heldout = _numbered(train, 0), _numbered(heldout, sum(map(len, train)))
  train = [dataset.laying_out(layout) for dataset in train]
  weights = [entry.weight for entry in spec.data.train.values()] if len(train) > 1 else None
  return Data(train, weights, heldout, surveys, tokenizer, plan.contexts, plan.pack)


def _numbered(datasets: Sequence[PairDataset], first: int) -> list[PairDataset]:
  """The same data sets with pairs that are numbered through, from `first` on."""
  starts = itertools.accumulate(map(len, datasets), initial=first)
  return [PairDataset(one.recipe, one.table, start) for one, start in zip(datasets, starts, strict=False)]


def build_tokenizer(spec: DataSpec, source: PolicySource) -> Tokenizer:
  """The run's tokenizer, whose every token must have a row in the model's embedding."""
  path = spec.tokenizer or source.tokenizer
  if not path:
    raise InputError("config.data.tokenizer: not set, and random weights bring none; name a directory or hub name")
  here = local_folder(str(resolve_model(path, with_weights=False))) if "://" in path else path
  tokenizer = load_tokenizer(here, spec.template_kwargs)
  if tokenizer.vocab_size > source.config.vocab_size:
    raise InputError(
      f"{path}: the tokenizer has {tokenizer.vocab_size} entries, the model's vocabulary {source.config.vocab_size}; "
      "use the model's own tokenizer, or a model with a vocabulary at least as large"
    )
  return tokenizer


def pack_spec(batch: BatchSpec, num_contexts: int) -> PackSpec:
  """Shape of one group of rows, checked."""
  groups, odd = divmod(batch.rows, batch.group_rows)
  if odd or groups % batch.accumulation:
    raise InputError(
      f"config.batch: rows={batch.rows} must be a multiple of group_rows * accumulation = "
      f"{batch.group_rows} * {batch.accumulation}"
    )
  if batch.max_pairs and (batch.max_pairs < groups or batch.max_pairs % groups):
    raise InputError(
      f"config.batch.max_pairs: {batch.max_pairs} is not a multiple of the {groups} groups of a step, rows / group_rows"
    )
  places = batch.max_pairs // groups or max(1, batch.group_rows * batch.row_length // TOKENS_PER_PAIR)
  return PackSpec(row_length=batch.row_length, rows=batch.group_rows, max_pairs=places, num_contexts=num_contexts)


def num_streams(batch: BatchSpec) -> int:
  """Logical shards of the data: each gives one group of rows to every step."""
  return batch.rows // batch.group_rows


def _check_source(where: str, entry: SourceSpec) -> None:
  check_name(f"{where}.format", entry.format, (*ADAPTERS, "auto"))
  if not 0 < entry.weight < math.inf:
    raise InputError(f"{where}.weight: {entry.weight} is not positive; it is the share of the draws")


def _recipe(data: DataSpec, entry: SourceSpec, plan: DataPlan, tokenizer: Tokenizer, rule: Rule) -> Recipe:
  return Recipe(
    source=open_source(entry.path, format=entry.format, on_error=data.on_error),
    rule=rule,
    contexts=plan.contexts,
    tokenizer=tokenizer,
    limits=plan.limits,
    pack=plan.pack,
    on_error=data.on_error,
  )


def _open(recipe: Recipe, spec: RunSpec) -> tuple[PairDataset, Survey]:
  found = survey(recipe, num_workers=spec.data.workers)
  return PairDataset(recipe, found.table), found
