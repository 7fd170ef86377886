"""docs/method.md names only what exists: functions of `amopo_jax.objective`, and tests."""

import importlib
import pathlib
import re

import pytest

from amopo_jax import objective

ROOT = pathlib.Path(__file__).parents[1]
MODULES = ("moments", "preference", "alpha", "reduction", "amopo", "baselines", "reference", "conflict")


@pytest.fixture(scope="module")
def page() -> str:
  return (ROOT / "docs" / "method.md").read_text(encoding="utf-8")


def test_functions_exist(page):
  named = re.findall(rf"`({'|'.join(MODULES)})\.(\w+)`", page)
  missing = [
    f"{module}.{name}"
    for module, name in named
    if name != "py" and name not in vars(importlib.import_module(f"amopo_jax.objective.{module}"))
  ]
  assert len(named) > 8
  assert missing == []


def test_tests_exist(page):
  sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "objective").glob("test_*.py"))
  named = set(re.findall(r"`(test_\w+)`", page))
  assert len(named) > 4
  assert {name for name in named if f"def {name}(" not in sources} == set()


def test_every_alpha_and_policy_is_explained(page):
  names = [*objective.ALPHAS, *objective.TIE_POLICIES]
  assert [name for name in names if f"| `{name}`" not in page] == []


def test_every_row_of_the_deviations_is_there(page):
  assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == [str(row) for row in range(1, 12)]
