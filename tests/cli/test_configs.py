import importlib
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from amopo_jax.cli import configs
from amopo_jax.types import InputError


def spec_of(*arguments):
  values = flags.FlagValues()
  configs.define_config(values, list(arguments))
  values(["amopo", *arguments])
  return configs.spec_from_flags(values)


@pytest.mark.parametrize(
  "arguments, expected",
  [
    ((), (None, [])),
    (("--config=a.py", "--config.b.c=1"), ("a.py", ["--config.b.c=1"])),
    (("--config", "a.py", "-config.b=1", "--workdir=w"), ("a.py", ["-config.b=1"])),
    (("--config=a.py", "--config=b.py"), ("b.py", [])),
    (("config=a.py",), (None, [])),
    (("--config",), ("", [])),
  ],
)
def test_what_the_arguments_say_of_the_config(arguments, expected):
  assert configs.config_arguments(arguments) == expected


def test_a_config_file_becomes_a_run_and_overrides_apply(config_file, make_spec):
  path = config_file()
  assert spec_of(f"--config={path}") == make_spec()
  assert spec_of("--config", str(path), "--config.optim.clip=1.5", "--config.data.contexts.helpfulness.high=5") == (
    make_spec(optim__clip=1.5, data__contexts__helpfulness__high=5.0)
  )


def test_the_order_of_the_contexts_is_the_config_s(config_file):
  assert list(spec_of(f"--config={config_file()}").data.contexts) == ["helpfulness", "correctness"]


def test_the_base_config_says_no_model_and_no_data():
  spec = configs.base_spec()
  assert (spec.model.path, spec.model.arch, spec.data.train) == ("", {}, {})


def test_a_config_elsewhere_finds_the_installed_configs(tmp_path, monkeypatch):
  path = tmp_path / "mine.py"
  path.write_text("from configs import base\n\n\ndef get_config():\n  return base.get_config()\n")
  bundled = importlib.import_module("configs")
  monkeypatch.setattr(configs, "BUNDLED", "bundled_configs")
  for name in ("base", ""):  # as in an installed package, where no top-level `configs` exists
    full = "configs" + (f".{name}" if name else "")
    monkeypatch.delitem(sys.modules, full, raising=False)
  monkeypatch.setitem(sys.modules, "bundled_configs", bundled)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  values = flags.FlagValues()
  configs.define_config(values, [f"--config={path}"])
  assert sys.modules["configs"] is bundled
  values(["amopo", f"--config={path}"])
  assert config_flags.get_config_filename(values["config"]) == str(path)
  assert configs.spec_from_flags(values).optim.clip == configs.base_spec().optim.clip


def test_a_config_in_a_checkout_takes_that_checkout_s(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, "path", list(sys.path))
  (tmp_path / "configs").mkdir()
  for name in ("base.py", "mine.py"):
    (tmp_path / "configs" / name).write_text("")
  configs.define_config(flags.FlagValues(), [f"--config={tmp_path}/configs/mine.py"])
  assert sys.path[0] == str(tmp_path)


def test_no_config_is_said():
  with pytest.raises(InputError, match="--config is missing; name a file"):
    spec_of()
