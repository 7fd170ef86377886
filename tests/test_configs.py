"""Every file in configs/ that is a run: it loads, maps onto a `RunSpec`, and says how to launch it."""

import importlib.util
import os
import pathlib
import re
import shlex
import subprocess

import pytest
from absl import flags

from amopo_jax import build_data
from amopo_jax.build_objective import build_objective
from amopo_jax.cli.configs import define_config, spec_from_flags
from amopo_jax.optim import make_optimizer, make_schedule
from amopo_jax.policy import count_parameters, find_config
from amopo_jax.prepare import prepare
from configs import base

CONFIGS = pathlib.Path(base.__file__).parent
FILES = {
  str(path.relative_to(CONFIGS)): path for path in sorted(CONFIGS.rglob("*.py")) if "def get_config" in path.read_text()
}
RUNS = [name for name in FILES if name != "base.py"]


def docstring(name):
  spec = importlib.util.spec_from_file_location("config_under_test", FILES[name])
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.__doc__


def load(name, *overrides):
  values, arguments = flags.FlagValues(), [f"--config={FILES[name]}", *overrides]
  define_config(values, arguments)
  values(["amopo", *arguments])
  return spec_from_flags(values)


def test_there_are_some():
  assert {"quickstart.py", "quickstart_sft.py"} <= set(RUNS)


@pytest.mark.parametrize("name", FILES)
def test_it_maps_onto_a_run(name):
  spec = load(name)
  if name != "base.py":
    build_data.plan_data(spec)
  parts = build_objective(spec.objective, len(spec.data.contexts), parts=1)
  schedule = make_schedule(spec.optim.schedule, peak=spec.optim.learning_rate, steps=10, warmup_fraction=0.1)
  assert callable(parts)
  assert callable(make_optimizer(spec.optim.name, schedule, clip=spec.optim.clip).update)


@pytest.mark.parametrize("name", RUNS)
def test_it_says_how_to_launch_it(name):
  text = docstring(name).replace("\\\n", " ")
  starts = rf"(?:amopo train|launch/\w+\.sh [^\n]*--) +--config=configs/{re.escape(name)} +--workdir=\S+(.*)"
  command = re.search(starts, text)
  assert command, text
  overrides = [word for word in command[1].split() if word.startswith("--config.")]
  load(name, *overrides)


@pytest.mark.parametrize("name", FILES)
def test_its_docstring_begins_with_what_it_is(name):
  first = docstring(name).splitlines()[0]
  assert len(first) > 20
  assert not first.startswith("amopo")


def test_the_quickstart_s_first_stage_passes_the_checks_of_a_run(world):
  overrides = (
    f"--config.data.train.world.path={world}/train.jsonl",
    f"--config.data.heldout.world.path={world}/heldout.jsonl",
    f"--config.data.tokenizer={world}/tokenizer",
  )
  run = prepare(load("quickstart_sft.py", *overrides), None)
  assert run.data.contexts.names == ("overall",)


def test_the_quickstart_s_second_stage_passes_them_too(world, trained):
  overrides = (
    f"--config.data.train.world.path={world}/train.jsonl",
    f"--config.data.heldout.world.path={world}/heldout.jsonl",
    f"--config.data.tokenizer={world}/tokenizer",
    f"--config.model.path={trained[0]}",
  )
  run = prepare(load("quickstart.py", *overrides), None)
  assert run.data.contexts.names == ("helpfulness", "correctness", "instruction_following")


@pytest.mark.parametrize(
  "name, billions",
  [
    ("qwen2_5_0_5b.py", 0.494),
    ("qwen2_5_7b.py", 7.616),
    ("qwen2_5_14b.py", 14.770),
    ("qwen2_5_32b.py", 32.764),
    ("llama3_1_8b.py", 8.030),
  ],
)
def test_the_pod_configs_know_their_architecture_and_keep_the_released_recipe(name, billions):
  spec = load(name)
  assert count_parameters(find_config(spec.model.path, dict(spec.model.arch))) / 1e9 == pytest.approx(
    billions, abs=6e-4
  )
  objective, optim = spec.objective, spec.optim
  assert (objective.name, objective.beta, objective.target_margin, objective.ties) == ("amopo", 0.8, 2.0, "keep")
  assert (optim.name, optim.learning_rate, optim.schedule, optim.clip) == ("adamw", 3e-7, "cosine", 3.0)
  assert (optim.warmup_fraction, spec.train.epochs, spec.data.max_length) == (0.1, 3, 1024)
  launch = re.search(r"launch/tpu_vm.sh .*", docstring(name).replace("\\\n", " "))
  assert launch
  dry_run = launch[0].replace("--zone=ZONE", "--zone=us-east5-b --dry-run")
  done = subprocess.run(
    shlex.split(dry_run), cwd=CONFIGS.parent, env=os.environ | {"HF_TOKEN": "token"}, capture_output=True, check=False
  )
  assert done.returncode == 0
  assert re.search(rf"amopo plan +--config=configs/{re.escape(name)} +--topology=\S+", docstring(name))


def test_every_key_of_the_base_config_is_explained():
  lines = (CONFIGS / "base.py").read_text().splitlines()
  keys = [line for line in lines if re.match(r"  config\.\w+\.\w+ = ", line)]
  assert len(keys) > 40
  obvious = ("config.optim.b1", "config.optim.b2", "config.optim.eps", "best_is_highest", "tensorboard", "too_long")
  assert [line for line in keys if "#" not in line and not any(name in line for name in obvious)] == []
