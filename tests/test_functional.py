"""docs/functional.md is true: its code blocks run in order, in one namespace, and its loop is short."""

import pathlib
import re

import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "functional.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def blocks() -> list[tuple[int, str]]:
  """The page's Python blocks, each with the number of its first line."""
  text = PAGE.read_text(encoding="utf-8")
  return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in BLOCK.finditer(text)]


def test_the_page_runs(blocks):
  namespace = {"__name__": "functional"}
  for line, source in blocks:
    code = compile("\n" * (line - 1) + source, str(PAGE), "exec")  # tracebacks point into the page
    exec(code, namespace)
  assert {"accuracy", "over_grid", "logistic_normal", "make_square", "make_single_sigmoid"} <= set(namespace)


def test_the_page_checks_itself(blocks):
  """A block that only prints proves nothing; the first two define what the third checks."""
  unchecked = [line for line, source in blocks[2:] if "assert" not in source]
  assert unchecked == []


def test_the_loop_is_thirty_lines(blocks):
  loop = next(source for _, source in blocks if "def train_step" in source)
  lines = [line for line in loop.splitlines() if line.strip() and not re.match(r"(from|import) ", line)]
  assert len(lines) <= 33, f"{len(lines)} lines"
