"""Conversion to the native format keeps every record; USR rows are grouped into dialogues."""

import json

import pytest

from amopo_jax.data.adapters import ADAPTERS
from amopo_jax.data.convert import FORMATS, convert
from amopo_jax.data.records import Message
from amopo_jax.data.sources import open_source
from amopo_jax.types import InputError


@pytest.mark.parametrize("format", ADAPTERS)
def test_the_native_file_reads_as_the_same_records(fixtures, tmp_path, format):
  path = next((fixtures / "records").glob(f"{format}.json*"))
  out = tmp_path / "out.jsonl"
  before = open_source(path, format=format)
  assert convert(str(path), format=format, out=out).num_records == len(before)
  after = open_source(out, format="native")
  for number in range(len(before)):
    assert after[number].prompt == before[number].prompt
    assert after[number].responses == before[number].responses
    assert after[number].chosen == before[number].chosen


def test_usr_rows_are_grouped_by_dialogue_wherever_they_stand(fixtures, tmp_path):
  out = tmp_path / "out.jsonl"
  assert convert(str(fixtures / "records" / "usr.json"), format="usr", out=out).num_records == 2
  films, evening = (open_source(out, format="native")[number] for number in range(2))
  assert films.prompt == (
    Message("system", "the first films had no sound ."),
    Message("user", "hi , do you like films ?"),
    Message("assistant", "yes , mostly old ones ."),
    Message("user", "which one would you watch again ?"),
  )
  assert [response.content for response in films.responses][1:] == ["i like films .", "the the films"]
  assert films.responses[0].scores["naturalness"] == 2.6666666667
  assert films.chosen is None
  # two turns: the other one opened the talk; no knowledge, no system message
  assert [message.role for message in evening.prompt] == ["assistant", "user"]
  assert len(evening.responses) == 2


def test_bad_records_may_be_skipped_and_are_counted(tmp_path):
  row = {"prompt": "hi", "responses": [{"content": "a", "scores": {"x": 1}}, {"content": "b", "scores": {"x": 2}}]}
  empty = {"prompt": "hi", "responses": [{"content": " ", "scores": {"x": 1}}, {"content": "b", "scores": {"x": 2}}]}
  path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
  path.write_text("".join(json.dumps(each) + "\n" for each in (row, empty, row)))
  done = convert(str(path), format="native", out=out, on_error="skip")
  assert (done.num_records, done.num_skipped) == (2, 1)
  assert "response 0 is empty" in done.skip_reasons[0].example
  assert len(open_source(out, format="native")) == 2
  with pytest.raises(InputError, match=r"on_error: rows of the USR format"):
    convert(str(path), format="usr", out=tmp_path / "usr.jsonl", on_error="skip")


def test_an_existing_file_is_not_overwritten(fixtures, tmp_path):
  out = tmp_path / "out.jsonl"
  out.write_text("mine")
  with pytest.raises(InputError, match=r"out.jsonl: exists already"):
    convert(str(fixtures / "records" / "usr.json"), format="usr", out=out)
  assert out.read_text() == "mine"


def test_an_unknown_format_is_refused(tmp_path):
  with pytest.raises(InputError, match=f"choose one of {', '.join(FORMATS)}"):
    convert("x.jsonl", format="parquet", out=tmp_path / "out.jsonl")


def test_a_missing_folder_is_refused(fixtures, tmp_path):
  with pytest.raises(InputError, match=r"out.jsonl: cannot be written \(No such file"):
    convert(str(fixtures / "records" / "usr.json"), format="usr", out=tmp_path / "none" / "out.jsonl")


def test_a_bad_row_is_named_and_leaves_no_file(tmp_path):
  row = {"source": "hi", "context": "", "system_output": "hello", "scores": {"overall": 3}}
  path = tmp_path / "usr.jsonl"
  path.write_text(json.dumps(row) + "\n" + json.dumps({**row, "scores": None}) + "\n")
  with pytest.raises(InputError, match=r"usr.jsonl:2: 'scores' is null"):
    convert(str(path), format="usr", out=tmp_path / "out.jsonl")
  assert [found.name for found in tmp_path.iterdir()] == ["usr.jsonl"]


def test_a_dialogue_with_one_response_is_refused(tmp_path):
  row = {"source": "hi", "context": "", "system_output": "hello", "scores": {"overall": 3}}
  path = tmp_path / "usr.json"
  path.write_text(json.dumps([row]))
  with pytest.raises(InputError, match=r"usr.json:1: 1 response\(s\)"):
    convert(str(path), format="usr", out=tmp_path / "out.jsonl")


def test_what_a_turn_wants_is_kept(tmp_path):
  responses = [{"content": text, "scores": {"tone": score}} for text, score in (("Leek.", 3), ("No.", 1))]
  row = {"prompt": "Soup?", "responses": responses, "wanted": {"tone": 2}}
  (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
  convert(str(tmp_path / "in.jsonl"), format="native", out=tmp_path / "out.jsonl")
  assert open_source(tmp_path / "out.jsonl", format="native")[0].wanted == {"tone": 2}
