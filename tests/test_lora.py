"""Runs with adapters: what they compute, what they save, that they resume, and what others make of their workdirs."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding
from rich.console import Console

from amopo_jax.checkpoint import Checkpoints
from amopo_jax.load import load_policy
from amopo_jax.models.transformer import abstract_params
from amopo_jax.policy import find_policy
from amopo_jax.train import train
from amopo_jax.writers import read_metrics

LORA = {"lora__rank": 4, "lora__alpha": 8.0, "train__epochs": 2}
TYPES = ("", "bfloat16", "int8", "nf4")


@pytest.fixture(scope="module")
def pretrained(trained, tmp_path_factory):
  """A Hugging Face directory: the policy of a complete run."""
  from amopo_jax.export import export

  out = tmp_path_factory.mktemp("pretrained") / "model"
  export(str(trained[0]), str(out))
  return out


@pytest.fixture(scope="module")
def lora_spec(make_spec, pretrained):
  """Makes the spec of a run with adapters on a pretrained model."""

  def make(**overrides):
    return make_spec(**(LORA | {"model__path": str(pretrained), "model__arch": {}, "objective__beta": 2.0} | overrides))

  return make


@pytest.fixture(scope="module", params=TYPES, ids=lambda name: name or "float32")
def adapted(request, lora_spec, tmp_path_factory):
  """Spec and workdir of a complete run with adapters, for each type of the base."""
  spec = lora_spec(lora__base_dtype=request.param)
  workdir = tmp_path_factory.mktemp("lora") / "run"
  train(spec, str(workdir), Console(file=io.StringIO(), width=200))
  return spec, workdir


def leaves_of(tree):
  return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def whole(path, step=None):
  """The merged parameters of a workdir, or those of a model directory, on one device."""
  source = find_policy(str(path), {}, step=step)
  here = SingleDeviceSharding(jax.devices()[0])
  placed = jax.tree.map(lambda _: here, abstract_params(source.config, jnp.float32))
  return source.config, load_policy(source, dtype=jnp.float32, shardings=placed)


def test_the_loss_falls_and_the_margin_grows(adapted):
  lines = read_metrics(str(adapted[1]))
  evaluations = [line for line in lines if "eval_loss" in line]
  assert evaluations[-1]["eval_loss"] < evaluations[0]["eval_loss"]
  losses = [line["loss"] for line in lines if "loss" in line]
  assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_only_adapters_and_their_moments_are_in_the_checkpoint(adapted):
  _, workdir = adapted
  step = Checkpoints(str(workdir)).latest_step()
  state = workdir / "checkpoints" / str(step) / "state"
  import orbax.checkpoint as ocp

  with ocp.StandardCheckpointer() as reader:
    names = leaves_of(reader.restore(state))
  arrays = [name for name, leaf in names.items() if np.ndim(leaf) > 1]
  assert arrays
  assert all("lora_a" in name or "lora_b" in name for name in arrays)
