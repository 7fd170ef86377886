"""The pages: what they link to is there, and what is there is linked."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def targets(page):
  """What a page links to in this repository; anchors and other sites left out."""
  links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
  return [page.parent / link.partition("#")[0] for link in links if not re.match(r"\w+:|#", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  missing = [str(target) for target in targets(page) if not target.exists()]
  assert not missing


def test_every_page_of_results_is_in_their_index():
  listed = {target.resolve() for target in targets(RESULTS / "README.md")}
  pages = {path for path in RESULTS.rglob("*.md") if path.name != "README.md"}
  assert not {str(path.relative_to(RESULTS)) for path in pages - listed}
