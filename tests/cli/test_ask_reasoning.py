import json

from fakes import gguf_file


def test_reasoning_that_came_as_the_answer_is_never_on_a_pipe(run_cli):
    outcome = run_cli("ask", "--no-think", "withdraw")
    assert (outcome.status, outcome.out) == (0, "    4\n")
    assert outcome.err.startswith("2 and 2\n")
    quiet = run_cli("ask", "-q", "--no-think", "withdraw")
    assert (quiet.out, quiet.err) == ("    4\n", "")


def test_reasoning_that_came_as_the_answer_is_reasoning_in_json_and_batches(run_cli, tmp_path):
    found = json.loads(run_cli("ask", "--json", "--no-think", "withdraw").out)
    assert (found["reasoning"], found["answer"]) == ("2 and 2", "    4")
    (tmp_path / "in.jsonl").write_text('{"prompt": "withdraw", "think": false}')
    run_cli("batch", "-q", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["reasoning"], row["answer"]) == ("2 and 2", "    4")


def test_a_model_that_stops_within_its_reasoning_has_not_answered(run_cli, tmp_path):
    outcome = run_cli("ask", "ponder")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1] == (
        "The model stopped within its reasoning: there is no answer. Ask again."
    )
    (tmp_path / "in.jsonl").write_text('{"prompt": "ponder"}\n"x"\n{"prompt": "say one"}\n')
    outcome = run_cli("batch", "-q", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    assert outcome.status == 3
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    (pondered,) = [row for row in rows if row["index"] == 0]
    assert "stopped within its reasoning" in pondered["error"] and pondered["reasoning"] == "Hm."


def test_a_chat_template_of_the_users_reaches_the_engine(run_cli, tmp_path):
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}")
    sent = json.loads(run_cli("ask", "echo", "--chat-template", str(tmp_path / "t.jinja")).out)
    assert sent["load"]["chat_template"] == "{{ messages[0].content }}"


def test_a_chat_template_that_is_none_is_wrong_use(run_cli, tmp_path):
    for content, why in (("{% for %}", "is broken"), ("  ", "is empty"), (b"\xff", "UTF-8")):
        file = tmp_path / "t.jinja"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        outcome = run_cli("ask", "x", "--chat-template", str(file))
        assert outcome.status == 2 and outcome.err.count("\n") == 1 and why in outcome.err
    assert run_cli("ask", "x", "--chat-template", str(tmp_path / "no")).status == 2


def test_a_file_without_a_template_of_a_known_architecture_gets_ours(run_cli, home):
    path = home / "models" / "v32.gguf"
    gguf_file.write_v32(path)
    outcome = run_cli("ask", "echo", "-m", "v32")
    sent = json.loads(outcome.out)["load"]["chat_template"]
    assert "<｜Assistant｜>" in sent
    assert outcome.err.splitlines()[0].startswith("The file has no chat template; localseek's own")
    given = home / "t.jinja"
    given.write_text("{{ messages[0].content }}")
    outcome = run_cli("ask", "echo", "-m", "v32", "--chat-template", str(given))
    assert json.loads(outcome.out)["load"]["chat_template"] == "{{ messages[0].content }}"
    assert json.loads(run_cli("ask", "echo").out)["load"]["chat_template"] == ""


def test_rows_may_name_a_reasoning_effort(run_cli, tmp_path):
    rows = ['{"prompt": "echo", "effort": "high"}', '{"prompt": "echo", "effort": "most"}']
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    run_cli("batch", "-q", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    (good,) = [row for row in found if "answer" in row]
    assert json.loads(good["answer"])["request"]["effort"] == "high"
    (bad,) = [row for row in found if "error" in row]
    assert bad["error"] == "effort is 'most', not high or max."
