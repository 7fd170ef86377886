"""The installed package has all of its folders, and every requirement says how far and why."""

import pathlib
import re
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages(folder, name):
  found = [path.parent.relative_to(folder) for path in folder.rglob("__init__.py")]
  return {".".join((name, *path.parts)) for path in found}


def test_every_package_folder_is_installed():
  expected = packages(ROOT / "amopo_jax", "amopo_jax") | packages(ROOT / "configs", "amopo_jax.configs")
  assert set(PROJECT["tool"]["setuptools"]["packages"]) == expected


def test_every_folder_with_modules_is_a_package():
  for top in ("amopo_jax", "configs"):
    folders = {path.parent for path in (ROOT / top).rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def requirements(name):
  lines = (ROOT / name).read_text().splitlines()
  return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("line", requirements("requirements.txt"))
def test_every_requirement_has_a_range_and_a_reason(line):
  requirement, hash_sign, reason = line.partition("#")
  assert re.fullmatch(r"[A-Za-z0-9_.-]+(\[\w+\])?>=[\d.]+(,<[\d.]+)?", requirement.strip()), line
  assert hash_sign
  assert len(reason.split()) >= 2
  calendar = ("fsspec", "gcsfs")  # dated versions, in step with each other: no next major release to fear
  assert "<" in requirement or requirement.startswith(calendar)


@pytest.mark.parametrize("name", ["requirements-dev.txt", "requirements-tpu.txt", "requirements-cuda.txt"])
def test_the_extras_have_ranges(name):
  for line in requirements(name):
    assert re.match(r"[A-Za-z0-9_.-]+(\[\w+\])?(==[\d.]+|>=[\d.]+,<[\d.]+)\s*(;[^#]+)?(#|$)", line), line


def test_the_extras_and_the_command_are_declared():
  dynamic = PROJECT["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
  assert set(dynamic) == {"tpu", "cuda", "dev"}
  assert all((ROOT / file).is_file() for extra in dynamic.values() for file in extra["file"])
  assert PROJECT["project"]["scripts"] == {"amopo": "amopo_jax.cli.main:main"}


def test_every_import_of_the_package_is_a_requirement():
  names = {re.split(r"[\[>=<]", line)[0].lower().replace("-", "_") for line in requirements("requirements.txt")}
  names |= {"absl" if "absl_py" in names else "", "orbax" if "orbax_checkpoint" in names else ""}  # other import names
  optional = {"wandb", "tokenizers", "amopo_jax", "configs"}  # wandb if asked for; tokenizers comes with transformers
  imported = {
    match
    for path in [*(ROOT / "amopo_jax").rglob("*.py"), *(ROOT / "configs").rglob("*.py")]
    for match in re.findall(r"^\s*(?:import|from) (\w+)(?:[\w.]*) *(?:import|as|$)", path.read_text(), re.MULTILINE)
  }
  third_party = {name.lower() for name in imported - set(sys.stdlib_module_names)} - optional
  assert third_party <= names
