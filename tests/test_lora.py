"""Runs with adapters: what they compute on one device and many, what they save, and that they resume."""

import io
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from rich.console import Console

from amopo_jax import build, build_data
from amopo_jax import mesh as meshes
from amopo_jax.build_objective import build_objective
from amopo_jax.build_step import build_optimizer
from amopo_jax.checkpoint import Checkpoints
from amopo_jax.data.collate import collate, count_pairs
from amopo_jax.data.pipeline import make_stream
from amopo_jax.load import load_base, load_policy
from amopo_jax.lora import check_base, check_lora, fingerprint, split_params, start_adapters, with_base
from amopo_jax.metrics import summarize
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import find_policy
from amopo_jax.run_spec import LoraSpec
from amopo_jax.state import init_state
from amopo_jax.step import make_eval_step, make_train_step
from amopo_jax.train import train
from amopo_jax.types import InputError
from amopo_jax.writers import read_metrics

ALL = r"layers/.*/kernel"


@pytest.fixture(scope="module")
def spec(make_spec):
  return make_spec(lora__rank=4, lora__base_dtype="nf4", train__epochs=2, train__save_every=2, train__eval_every=3)


@pytest.fixture(scope="module")
def adapted(spec, tmp_path_factory):
  """The workdir of a complete run with adapters beside a base in 4 bits, and what it said."""
  workdir, said = tmp_path_factory.mktemp("lora") / "run", Console(file=io.StringIO(), width=200)
  train(spec, str(workdir), said)
  return workdir, said.file.getvalue()


def saved(workdir):
  """Every array of the newest checkpoint, by name."""
  step = Checkpoints(str(workdir)).latest_step()
  with ocp.StandardCheckpointer() as reader:
    found = reader.restore(workdir / "checkpoints" / str(step) / "state")
  leaves = jax.tree_util.tree_leaves_with_path(found)
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def test_the_held_out_loss_falls(adapted):
  lines = [line for line in read_metrics(str(adapted[0])) if "eval_loss" in line]
  assert lines[-1]["eval_loss"] < lines[0]["eval_loss"]
  assert "LoRA of rank 4: 4,096 parameters are trained and saved, in adapters; frozen kernels in nf4" in adapted[1]


def bytes_on_disk(workdir):
  step = Checkpoints(str(workdir)).latest_step()
  files = (workdir / "checkpoints" / str(step) / "state").rglob("*")
  return sum(file.stat().st_size for file in files if file.is_file())


def test_only_adapters_and_their_moments_are_on_disk(adapted, trained):
  arrays = {name: value for name, value in saved(adapted[0]).items() if value.ndim > 1}
  assert all("'lora_a'" in name or "'lora_b'" in name for name in arrays)
  assert len(arrays) == 3 * 14  # parameters, two moments; A and B of seven kernels
  assert sum(value.size for value in arrays.values()) == 3 * 4096
  assert bytes_on_disk(adapted[0]) < 0.7 * bytes_on_disk(trained[0])  # of a tiny model; most of it is names


def test_a_resumed_run_ends_with_the_same_bits(adapted, spec, tmp_path, console):
  shutil.copytree(adapted[0], tmp_path / "run")
  steps = Checkpoints(str(tmp_path / "run")).steps()
  assert len(steps) > 1
  for step in steps[1:]:
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
  train(spec, str(tmp_path / "run"), console)
  assert "resumed at step" in console.file.getvalue()
  ours, theirs = saved(tmp_path / "run"), saved(adapted[0])
  assert ours.keys() == theirs.keys()
  for name, value in theirs.items():
    np.testing.assert_array_equal(ours[name], value, err_msg=name)


@pytest.fixture(scope="module")
def wide(make_spec):
  """A model whose kernels have several tiles."""
  arch = dict(make_spec().model.arch) | {"hidden_size": 64, "head_dim": 32, "intermediate_size": 128}
  return make_spec(batch__group_rows=1, batch__row_length=192, objective__target_margin=0.5, model__arch=arch)


@pytest.fixture(scope="module")
def groups(wide):
  data = build_data.build_data(wide, find_policy("", dict(wide.model.arch)))
  stream = make_stream(
    data.train, data.pack, seed=0, num_epochs=1, num_streams=8, owned=range(8), num_workers=0, shuffle=False
  )
  return next(stream)


def one_step(spec, groups, lora, *, sizes=(1, 1, 1), accumulation=1, steps=2):
  """Metrics of some steps on one batch, evaluation after them, and the base's fingerprint."""
  devices = jax.devices()[: int(np.prod(sizes))]
  grid = meshes.make_mesh(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)), devices=devices)
  source = find_policy("", dict(spec.model.arch))
  placed = build.param_shardings(spec, abstract_params(source.config, np.float32), grid)
  split = split_params(lora, source.config, np.float32, placed)
  base = load_base(source, split, lora, dtype=np.float32, placed=placed, seed=0)
  if lora.rank:
    params = start_adapters(lora, source.config, split, seed=0)
  else:
    params = load_policy(source, dtype=np.float32, shardings=placed, seed=0)
  tx, schedule = build_optimizer(spec, 10)
  score_fn = build.build_score_fn(spec.model, source.config, 2, grid)
  objective = build_objective(spec.objective, 2, parts=1)
  batch = meshes.place_batch(collate(groups, accumulation=accumulation, num_pairs=count_pairs(groups)), grid)
  make = lambda score_fn: make_train_step(score_fn, objective, tx, schedule)
  train_step = jax.jit(with_base(make, score_fn, split.join))
  state = init_state(params, tx, seed=3)
  for _ in range(steps):
    state, metrics = train_step(state, batch, base.params)
  evaluate = jax.jit(with_base(lambda score_fn: make_eval_step(score_fn, objective), score_fn, split.join))
  return jax.device_get((state, metrics, evaluate(state.params, batch, base.params))), base.fingerprint


SPLITS = [((1, 8, 1), 1), ((1, 4, 2), 2)]


@pytest.fixture(scope="module", params=["", "int8", "nf4"], ids=["float32", "int8", "nf4"])
def reference(request, wide, groups):
  lora = LoraSpec(4, 8.0, request.param, ALL)
  return lora, one_step(wide, groups, lora)


@pytest.mark.slow
@pytest.mark.parametrize("sizes, accumulation", SPLITS, ids=str)
def test_steps_do_not_depend_on_the_split(wide, groups, reference, sizes, accumulation):
  lora, ((state, metrics, sums), named) = reference
  (ours, found, evaluated), name = one_step(wide, groups, lora, sizes=sizes, accumulation=accumulation)
  assert name == named
  np.testing.assert_allclose(found["grad_norm"], metrics["grad_norm"], rtol=1e-4)
  for mine, other in ((found["sums"], metrics["sums"]), (evaluated, sums)):
    a, b = (summarize(x, ["helpfulness", "correctness"]) for x in (mine, other))
    for key, value in a.items():
      np.testing.assert_allclose(value, b[key], rtol=1e-4, atol=1e-5, err_msg=key)
  assert int(ours.step) == int(state.step) == 2


@pytest.mark.slow
def test_before_the_first_step_an_evaluation_is_that_of_the_whole_model(wide, groups):
  whole = one_step(wide, groups, LoraSpec(0, 16.0, "", ALL), steps=1)
  fresh = one_step(wide, groups, LoraSpec(4, 8.0, "", ALL), steps=1)
  for ours, theirs in zip(fresh[0][1]["sums"], whole[0][1]["sums"], strict=True):  # of the state before the step
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
  assert whole[1] == ""
  size = lambda tree: sum(np.size(leaf) for leaf in jax.tree.leaves(tree))
  adapters = size(fresh[0][0].params)
  assert size(fresh[0][0].opt_state) < 2 * adapters + 10
  assert size(whole[0][0].opt_state) > 10 * adapters


@pytest.mark.parametrize(
  "lora, message",
  [
    (LoraSpec(4, 0.0, "", ALL), r"alpha: 0\.0 is not a finite positive number"),
    (LoraSpec(4, float("nan"), "", ALL), r"alpha: nan is not a finite positive number"),
    (LoraSpec(4, 8.0, "int4", ALL), r"base_dtype: 'int4' is unknown; choose one of bfloat16, int8, nf4"),
    (LoraSpec(0, 8.0, "nf4", ALL), r"base_dtype: nf4 has no effect at rank 0"),
    (LoraSpec(4, 8.0, "", "embed/weight"), r"targets: 'embed/weight' matches no kernel"),
    (LoraSpec(17, 8.0, "", ALL), r"rank: 17 is more than layers/attn/k/kernel \(32, 16\) has; give at most 16"),
  ],
)
def test_settings_that_cannot_be_are_refused_by_key(make_spec, lora, message):
  config = find_policy("", dict(make_spec().model.arch)).config
  with pytest.raises(InputError, match=rf"config\.lora\.{message}"):
    check_lora(lora, config)


def test_a_negative_rank_is_refused(make_spec):
  with pytest.raises(InputError, match=r"config\.lora\.rank: -1 cannot be; the least is 0"):
    make_spec(lora__rank=-1)


def test_a_fingerprint_tells_bases_apart_and_a_strange_one_is_refused():
  tree = {"a": np.arange(6, dtype=np.float32), "codes": jax.numpy.arange(16).astype("uint4")}
  assert fingerprint(tree) == fingerprint(jax.tree.map(lambda x: x + 0, tree))
  assert fingerprint(tree) != fingerprint(tree | {"codes": tree["codes"].at[3].set(4)})
  check_base("abc", "abc", "runs/x", "org/base")
  with pytest.raises(InputError, match=r"runs/x: its adapters belong to another base than org/base has now"):
    check_base("abc", "abd", "runs/x", "org/base")
