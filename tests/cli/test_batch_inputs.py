"""What a batch reads and writes: kinds of rows, templates, manifests, orders, progress."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from localseek.batch.rows import read_rows


def written(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answers(path: Path) -> dict[int, str]:
    return {row["index"]: row.get("answer", row.get("error")) for row in written(path)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.jsonl", '"say one"\n{"prompt": "say two"}\n'),
        ("in.txt", "say one\n\nsay two\n"),
        ("in", "say one\r\nsay two"),
        ("in", '"say one"\n"say two"'),
        ("in.csv", 'prompt,other\nsay one,x\n"say two",y\n'),
        ("in.tsv", "prompt\tother\nsay one\tx\nsay two\ty\n"),
    ],
)
def test_rows_come_in_many_forms(run_cli, tmp_path, out, name, content):
    (tmp_path / name).write_bytes(content.encode())
    assert run_cli("batch", str(tmp_path / name), str(out)).status == 0
    assert answers(out) == {0: "one", 1: "two"}


def test_standard_input_is_read_as_what_it_is(command, environment):
    for given in (b"say one\nsay two\n", b'"say one"\n{"prompt": "say two"}\n'):
        done = subprocess.run(
            [*command, "batch", "-m", "tiny", "-", "-", "-q"], env=environment, input=given,
            capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        assert [json.loads(line)["answer"] for line in done.stdout.splitlines()] == ["one", "two"]


def test_a_template_makes_prompts_of_columns(run_cli, tmp_path, out):
    table = tmp_path / "in.csv"
    table.write_text('id,word,note\na,"one, two",x\nb,"line\nbreak",y\n')
    outcome = run_cli("batch", str(table), str(out), "--template", "say {word} {{{note}}}")
    assert outcome.status == 0, outcome.err
    assert answers(out) == {0: "one, two {x}", 1: "line\nbreak {y}"}
    assert [row["id"] for row in written(out)] == ["a", "b"]


def test_a_template_also_fills_json_rows_and_leaves_their_options(run_cli, tmp_path, out):
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"word": "one", "temperature": "hot"}\n{"word": 2}\n{"other": 1}\n"text"\n')
    assert run_cli("batch", str(rows), str(out), "--template", "say {word}").status == 3
    assert answers(out) == {
        0: "temperature is 'hot', not a number from 0 to 100.",
        1: "2",
        2: "The row has no 'word', which --template names.",
        3: "The row has no 'word', which --template names.",
    }


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("say {nothing}", "has no column 'nothing'; its columns: word."),
        ("say it", "names no column"),
        ("say {word", "has a brace that is not part of {column}"),
        ("say {}", "has a brace that is not part of {column}"),
        ("", "has no column 'prompt'; its columns: word."),
    ],
)
def test_a_template_that_does_not_fit_is_wrong_use(run_cli, tmp_path, out, template, words):
    (tmp_path / "in.csv").write_text("word\none\n")
    outcome = run_cli("batch", str(tmp_path / "in.csv"), str(out), "--template", template)
    assert (outcome.status, words in outcome.err) == (2, True), outcome.err
    assert not out.exists()


def test_a_row_of_a_table_with_cells_missing_fails_alone(run_cli, tmp_path, out):
    (tmp_path / "in.csv").write_text("prompt,x\nsay one,1\nsay two\nsay three,3,4\nsay four,4\n")
    assert run_cli("batch", str(tmp_path / "in.csv"), str(out)).status == 3
    found = answers(out)
    assert (found[0], found[3]) == ("one", "four")
    assert found[1].endswith("has not one cell a column.") and "error" in written(out)[0]


def openai_row(number: int, content: object, **body: object) -> str:
    messages = [{"role": "user", "content": content}]
    return json.dumps({
        "custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "gpt", "messages": messages, **body},
    })  # fmt: skip


def test_a_misspelt_option_fails_its_row_and_other_names_are_the_users_own(tmp_path):
    source = tmp_path / "in.jsonl"
    rows = [{"prompt": "1", "temprature": 1}, {"prompt": "1", "topic": "sums", "top_k": 3}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    misspelt, other = read_rows(source)
    assert misspelt.problem == "There is no option 'temprature'. Did you mean temperature?"
    assert not other.problem and other.fields["topic"] == "sums"


def test_rows_of_an_openai_batch_are_answered_in_kind(run_cli, tmp_path, out):
    rows = tmp_path / "in.jsonl"
    parts = [{"type": "text", "text": "say "}, {"type": "text", "text": "two"}]
    lines = [
        openai_row(1, "say one", max_completion_tokens=50, user="me"),
        openai_row(2, parts),
        openai_row(3, "echo", temperature=0.5, seed=3, stop="X", reasoning_effort="none"),
        openai_row(4, "say four", tools=[{"type": "function"}]),
        openai_row(5, [{"type": "image_url"}]),
        json.dumps({"custom_id": "r6", "url": "/v1/embeddings", "body": {}}),
    ]
    rows.write_text("\n".join(lines))
    assert run_cli("batch", str(rows), str(out)).status == 3
    found = {row["custom_id"]: row for row in written(out)}
    first = found["r1"]["response"]["body"]
    assert first["choices"][0]["message"]["content"] == "one"
    assert first["choices"][0]["finish_reason"] == "stop" and found["r1"]["error"] is None
    assert first["usage"]["completion_tokens"] == 19
    assert found["r2"]["response"]["body"]["choices"][0]["message"]["content"] == "two"
    sent = json.loads(found["r3"]["response"]["body"]["choices"][0]["message"]["content"])
    assert (sent["request"]["sampling"]["seed"], sent["request"]["think"]) == (3, False)
    for name, words in (("r4", "tools"), ("r5", "is not a text"), ("r6", "/v1/embeddings")):
        assert found[name]["response"] is None and words in found[name]["error"]["message"]
    again = run_cli("batch", str(rows), str(out), "--json")
    assert json.loads(again.out)["skipped"] == 3, "failed rows are tried again, the others not"


def test_other_options_than_those_a_run_began_with_are_refused(run_cli, tmp_path, out):
    (tmp_path / "in.txt").write_text("say one\n")
    words = ("batch", str(tmp_path / "in.txt"), str(out))
    assert run_cli(*words, "--temperature", "0.5").status == 0
    before = out.read_bytes()
    outcome = run_cli(*words, "--temperature", "0.7", "--system", "Be brief.")
    assert (outcome.status, out.read_bytes()) == (2, before)
    assert "begun otherwise: the system prompt is another one; temperature was 0.5, is 0.7." in (
        outcome.err
    )
    assert run_cli(*words, "--temperature", "0.5").status == 0
    assert run_cli(*words, "--temperature", "0.7", "--restart").status == 0
    assert run_cli(*words, "--temperature", "0.7").status == 0
    manifest = json.loads(Path(f"{out}.manifest.json").read_text())
    assert manifest["options"]["temperature"] == 0.7 and "say one" not in json.dumps(manifest)


def test_rows_that_were_added_are_answered_and_the_others_stay(run_cli, tmp_path, out):
    (tmp_path / "in.txt").write_text("say one\n")
    words = ("batch", str(tmp_path / "in.txt"), str(out), "--json")
    run_cli(*words)
    (tmp_path / "in.txt").write_text("say one\nsay two\n")
    assert json.loads(run_cli(*words).out)["skipped"] == 1
    assert answers(out) == {0: "one", 1: "two"}


def test_answers_come_in_the_order_of_rows_if_that_is_wanted(run_cli, tmp_path, out):
    (tmp_path / "in.txt").write_text("long\nsay two\nfail\nsay four\n")
    words = ("batch", str(tmp_path / "in.txt"), str(out), "--in-order", "--parallel", "2")
    assert run_cli(*words).status == 3
    assert [row["index"] for row in written(out)] == [0, 1, 2, 3]


def test_rows_that_begin_alike_follow_each_other(run_cli, tmp_path, out):
    long = ["say " + letter * 300 for letter in "ab"]
    prompts = [long[0] + " 1", long[1] + " 1", "say one", long[0] + " 2", long[1] + " 2"]
    (tmp_path / "in.txt").write_text("\n".join(prompts))
    assert run_cli("batch", str(tmp_path / "in.txt"), str(out), "--parallel", "1").status == 0
    assert [row["index"] for row in written(out)] == [0, 3, 1, 4, 2]


def test_progress_is_told_to_programs_as_lines_of_json(command, environment, tmp_path, out):
    (tmp_path / "in.txt").write_text("say one\nfail\n")
    done = subprocess.run(
        [*command, "batch", "-m", "tiny", str(tmp_path / "in.txt"), str(out), "--json"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["done"], last["rows"], last["failed"]) == (2, 2, 1)
    assert json.loads(done.stdout)["answered"] == 1


def test_a_run_killed_again_and_again_ends_with_the_same_answers(
    command, environment, tmp_path, out
):
    count, dice = 60, random.Random(4)
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(count)))
    words = [*command, "batch", "-m", "tiny", str(source), str(out), "--parallel", "3", "-q"]
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL)
        target = (len(out.read_bytes()) if out.exists() else 0) + dice.randint(1, 4000)
        while process.poll() is None and (not out.exists() or out.stat().st_size < target):
            time.sleep(0.002)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.send_signal(dice.choice((signal.SIGKILL, signal.SIGINT)))
        process.wait()
        kills += 1
        if dice.random() < 0.3 and out.stat().st_size:  # power went: the last line is torn
            out.write_bytes(out.read_bytes()[: -dice.randint(1, 30)])
    assert kills > 3
    assert process.returncode == 0
    found = [(row["index"], row["answer"]) for row in written(out)]
    assert sorted(found) == [(n, str(n)) for n in range(count)]


def test_a_hostile_file_is_an_error_row_or_one_line(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"[" * 100_000 + b"\n" + b'{"prompt": "' + b"x" * 1_000_000 + b'"}\n\xff\n')
    bad, good, broken = read_rows(path)
    assert bad.problem and broken.problem == "Line 3 is not valid UTF-8."
    assert len(good.fields["prompt"]) == 1_000_000
