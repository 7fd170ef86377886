import json


def test_it_writes_a_world_and_says_what_is_in_it(amopo, tmp_path):
  out = tmp_path / "world"
  status, text, err = amopo("lab", "world", f"--out={out}", "--train=12", "--heldout=4", "--seed=3")
  assert (status, err) == (0, "")
  lines = (out / "train.jsonl").read_text().splitlines()
  assert len([json.loads(line) for line in lines]) == 12
  assert f"{out}/train.jsonl: 12 records (" in text
  assert f"{out}/heldout.jsonl: 4 records (" in text
  assert "at the optimum" in text
