"""Imports point down, and libraries stay in their rooms: the table of CONTRIBUTING.md, read from the source."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "amopo_jax"
LEVELS = {"types": 0, "objective": 1, "data": 1, "models": 1, "mesh": 1, "optim": 1}
LEVELS |= {"state": 2, "step": 2, "metrics": 2, "checkpoint": 2, "cli": 4, "__main__": 5}
ROOMS = {
  "ml_collections": ("cli",),
  "grain": ("data",),
  "tensorflow_datasets": ("data",),
  "tokenizers": ("data", "lab"),
  "transformers": ("data", "lab"),
  "orbax": ("checkpoint",),
  "flax": ("models", "state"),
  "qwix": ("models",),
  "torch": (),
  "tensorflow": (),
}


def room(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: pathlib.Path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module == "amopo_jax":
      yield from (f"amopo_jax.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module or ""


def crossings(path: pathlib.Path, names) -> list[str]:
  mine, level, found = room(path), LEVELS.get(room(path), 3), []
  for name in names:
    first, *rest = name.split(".")
    if first in ROOMS and mine not in ROOMS[first]:
      found.append(f"{path.name} imports {first}, which lives in {ROOMS[first] or 'tests only'}")
    if first == "amopo_jax" and rest:
      theirs = LEVELS.get(rest[0], 3)
      if theirs > level or (theirs == level == 1 and rest[0] != mine):
        found.append(f"{path.name} (level {level}) imports {name} (level {theirs})")
  return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_and_libraries_stay_in_their_rooms(path):
  assert crossings(path, imports(path)) == []


@pytest.mark.parametrize(
  "file, name",
  [
    ("objective/alpha.py", "amopo_jax.models.head"),
    ("types.py", "amopo_jax.step"),
    ("step.py", "amopo_jax.train"),
    ("train.py", "orbax.checkpoint"),
    ("models/head.py", "torch"),
  ],
)
def test_a_crossing_is_found(file, name):
  assert crossings(PACKAGE / file, [name])


GRADERS = "amopo_jax.lab.graders"
GRADE = {"GRADERS", "grade", "helpfulness", "correctness", "instruction_following"}
MAY_GRADE = {"cli/lab.py", *(f"lab/{name}.py" for name in ("grading", "responders", "summary", "world"))}
"""They write records, measure responses, or print."""


def takes_graders(path: pathlib.Path) -> bool:
  nodes = list(ast.walk(ast.parse(path.read_text())))
  whole = any(isinstance(node, ast.Import) and GRADERS in {alias.name for alias in node.names} for node in nodes)
  froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
  whole |= any(node.module == "amopo_jax.lab" and "graders" in {a.name for a in node.names} for node in froms)
  return whole or any(node.module == GRADERS and GRADE & {alias.name for alias in node.names} for node in froms)


def test_no_method_sees_the_graders():
  """What trains takes records; only what makes them, and what measures responses afterwards, can grade."""
  assert {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if takes_graders(path)} == MAY_GRADE
  trains = [path for path in PACKAGE.rglob("*.py") if room(path) not in ("lab", "cli")]
  assert [path for path in trains if any(name.startswith("amopo_jax.lab") for name in imports(path))] == []
