import fcntl
import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")


def write_rows(path: str, *rows: object) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_each_row_is_answered_with_its_own_options(run_cli, files):
    write_rows(
        files[0],
        {"id": "a", "prompt": "say one"},
        {"prompt": "echo", "temperature": 0.5, "system": "Be brief.", "stop": ["X"]},
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "echo"}]},
    )
    outcome = run_cli("batch", *files, "--seed", "3", "-q")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    first, second, third = read_rows(files[1])
    assert (first["index"], first["id"], first["answer"]) == (0, "a", "one")
    assert (first["finish_reason"], first["stats"]["generated_tokens"]) == ("stop", 19)
    sent = json.loads(second["answer"])["request"]
    assert (sent["sampling"]["temperature"], sent["sampling"]["seed"]) == (0.5, 3)
    assert (sent["stop"], sent["messages"][0]["content"]) == (["X"], "Be brief.")
    assert len(json.loads(third["answer"])["request"]["messages"]) == 2


def test_a_run_that_is_started_again_skips_what_is_answered(run_cli, files):
    write_rows(files[0], {"prompt": "say one"}, {"prompt": "say two"})
    run_cli("batch", *files)
    before = Path(files[1]).read_bytes()
    outcome = run_cli("batch", *files, "--json")
    summary = json.loads(outcome.out)
    assert (outcome.status, summary["skipped"], summary["answered"]) == (0, 2, 0)
    assert Path(files[1]).read_bytes() == before


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_last_line_torn_by_a_kill_is_answered_again(run_cli, files, cut):
    write_rows(files[0], {"prompt": "say one"}, {"prompt": "say two"})
    run_cli("batch", *files)
    whole = Path(files[1]).read_bytes()
    Path(files[1]).write_bytes(whole[:-cut])
    outcome = run_cli("batch", *files)
    assert outcome.status == 0
    assert outcome.err.startswith("The last line was torn")
    assert [row["answer"] for row in read_rows(files[1])] == ["one", "two"]


def test_bad_rows_give_an_error_row_each_and_status_3(run_cli, files):
    Path(files[0]).write_bytes(
        b"not json\n[1]\n{}\n"
        b'{"prompt": " "}\n{"prompt": "x", "temperature": "hot"}\n{"prompt": "x\xff"}\n'
        b'{"messages": [{"role": "robot", "content": "x"}]}\n'
        b'{"prompt": "say fine"}\n'
    )
    outcome = run_cli("batch", *files)
    assert outcome.status == 3
    *bad, good = read_rows(files[1])
    assert [row["error"].partition(":")[0] for row in bad] == [
        "Line 1 is not valid JSON",
        "Line 2 is neither a JSON object nor a string.",
        "A row needs either prompt or messages.",
        "prompt is not a string, or is empty.",
        "temperature is 'hot', not a number from 0 to 100.",
        "Line 6 is not valid UTF-8.",
        "The role 'robot' is none of system, user, assistant.",
    ]
    assert good["answer"] == "fine"
    assert outcome.err.startswith("8 rows: 1 answered, 7 failed: run it again to retry them")


def test_failed_rows_are_tried_again_and_leave_one_line_each(run_cli, files):
    write_rows(files[0], {"prompt": "fail"}, {"prompt": "say two"})
    assert run_cli("batch", *files).status == 3
    assert run_cli("batch", *files).status == 3
    write_rows(files[0], {"prompt": "say one"}, {"prompt": "say two"})
    assert run_cli("batch", *files).status == 0
    answers = {row["index"]: row["answer"] for row in read_rows(files[1])}
    assert (len(read_rows(files[1])), answers) == (2, {0: "one", 1: "two"})


def test_changed_input_is_noticed_and_restart_answers_it_anew(run_cli, files):
    write_rows(files[0], {"prompt": "say one"}, {"prompt": "say two"})
    run_cli("batch", *files)
    before = Path(files[1]).read_bytes()
    write_rows(files[0], {"prompt": "say three"}, {"prompt": "say two"})
    outcome = run_cli("batch", *files)
    assert outcome.status == 2
    assert outcome.err == (
        f"localseek: {files[1]} holds 1 answer to other input than this: row 1 changed. "
        "Give another OUT, or --restart to begin again.\n"
    )
    assert Path(files[1]).read_bytes() == before
    assert run_cli("batch", *files, "--restart").status == 0
    assert {row["answer"] for row in read_rows(files[1])} == {"three", "two"}


def test_marks_of_other_systems_and_blank_lines_do_not_count(run_cli, files):
    Path(files[0]).write_bytes(
        b'\xef\xbb\xbf{"prompt": "say one"}\r\n\r\n   \n{"prompt": "say two"}'
    )
    assert run_cli("batch", *files).status == 0
    assert [row["answer"] for row in read_rows(files[1])] == ["one", "two"]


def test_an_engine_that_dies_once_over_a_row_is_started_again(run_cli, files, tmp_path):
    write_rows(files[0], {"prompt": f"die-once {tmp_path / 'died'}"}, {"prompt": "say two"})
    outcome = run_cli("batch", *files)
    assert outcome.status == 0
    assert outcome.err.startswith(
        "The engine died; the row is tried once more.\n2 rows: 2 answered"
    )


def test_a_row_that_kills_the_engine_twice_fails_and_the_rest_goes_on(run_cli, files):
    write_rows(files[0], {"prompt": "die"}, {"prompt": "say two"})
    assert run_cli("batch", *files).status == 3
    dead, good = read_rows(files[1])
    assert dead["error"].startswith("The engine died of signal 9.")
    assert good["answer"] == "two"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"my notes", "is not the output of a batch. Give another OUT."),
        (b"my notes\n", "is not the output of a batch. Give another OUT."),
        (b'{"a": 1}\n{"b": 2}\n', "is not the output of a batch. Give another OUT."),
    ],
)
def test_a_file_that_is_no_output_of_a_batch_is_left_alone(run_cli, files, content, words):
    write_rows(files[0], {"prompt": "say one"})
    Path(files[1]).write_bytes(content)
    outcome = run_cli("batch", *files)
    assert (outcome.status, words in outcome.err) == (2, True)
    assert Path(files[1]).read_bytes() == content


def test_input_and_output_must_differ(run_cli, files):
    write_rows(files[0], {"prompt": "say one"})
    outcome = run_cli("batch", files[0], files[0])
    assert outcome.status == 2
    assert outcome.err == "localseek: IN and OUT are the same file. Give another OUT.\n"


def test_input_without_rows_is_wrong_use_and_leaves_no_output(run_cli, files):
    Path(files[0]).write_bytes(b"\n \n")
    outcome = run_cli("batch", *files)
    assert outcome.status == 2
    assert outcome.err == f"localseek: {files[0]} has no rows. Each line is one prompt.\n"
    assert not Path(files[1]).exists()


def test_a_model_that_does_not_load_leaves_no_output(run_cli, files, monkeypatch):
    monkeypatch.setenv("FAKE_ENGINE", "load-fails")
    write_rows(files[0], {"prompt": "say one"})
    outcome = run_cli("batch", *files)
    assert (outcome.status, outcome.err) == (1, "localseek: No memory. Buy.\n")
    assert not Path(files[1]).exists()


def test_a_second_process_on_the_same_output_is_refused(run_cli, files):
    write_rows(files[0], {"prompt": "say one"})
    with open(files[1], "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        outcome = run_cli("batch", *files)
    assert outcome.status == 2
    assert outcome.err == f"localseek: Another process is writing {files[1]}.\n"


def test_interrupt_leaves_a_file_that_the_same_command_goes_on_with(
    command, environment, files, run_cli, tmp_path
):
    write_rows(files[0], {"prompt": "say one"}, {"prompt": "forever"})
    process = subprocess.Popen(
        [*command, "batch", "-m", "tiny", *files], env=environment, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    while not Path(files[1]).exists() or not Path(files[1]).read_bytes():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert errors.startswith("2 rows: 1 answered, stopped: the same command goes on from here")
    assert [row["answer"] for row in read_rows(files[1])] == ["one"]


def test_an_interrupt_in_the_tail_of_a_row_stops_after_it(command, environment, files, tmp_path):
    reached = tmp_path / "reached"
    write_rows(files[0], {"prompt": f"tail {reached}"}, {"prompt": "say two"})
    process = subprocess.Popen(
        [*command, "batch", "-m", "tiny", *files], env=environment, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    while not reached.exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert errors.startswith("2 rows: 1 answered, stopped: the same command goes on from here")
    assert [row["answer"] for row in read_rows(files[1])] == ["all but the end"]


def test_an_output_that_is_no_regular_file_is_refused_and_left_alone(run_cli, files):
    write_rows(files[0], {"prompt": "say one"})
    os.mkfifo(files[1])
    outcome = run_cli("batch", *files)
    assert outcome.status == 2
    assert outcome.err == f"localseek: {files[1]} is not a regular file. Give another OUT.\n"
    assert Path(files[1]).is_fifo()


def test_an_empty_file_that_was_there_before_stays(run_cli, files, monkeypatch):
    monkeypatch.setenv("FAKE_ENGINE", "load-fails")
    write_rows(files[0], {"prompt": "say one"})
    Path(files[1]).touch()
    assert run_cli("batch", *files).status == 1
    assert Path(files[1]).read_bytes() == b""


def run_with_little_room(words: list[str], environment: dict[str, str], size_bytes: int) -> str:
    done = subprocess.run(
        words, env={**environment, "PYTHONDONTWRITEBYTECODE": "1"}, stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes)),
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(command, environment, files, run_cli):
    write_rows(files[0], {"prompt": "say one"}, {"prompt": f"say {'x' * 2000}"})
    said = run_with_little_room([*command, "batch", "-m", "tiny", *files], environment, 1000)
    assert said == (
        f"localseek: {files[1]} cannot be written: File too large. "
        "Make room and run the same command again: what is answered stays.\n"
    )
    assert run_cli("batch", *files).status == 0
    assert [row["answer"] for row in read_rows(files[1])] == ["one", "x" * 2000]


def test_a_full_disk_while_the_output_is_repaired_leaves_it_as_it_was(
    command, environment, files, run_cli
):
    write_rows(files[0], {"prompt": f"say {'x' * 2000}"}, {"prompt": "fail"})
    assert run_cli("batch", *files).status == 3
    before = Path(files[1]).read_bytes()
    said = run_with_little_room([*command, "batch", "-m", "tiny", *files], environment, 1000)
    assert said.startswith(f"localseek: {files[1]} cannot be written: File too large.")
    assert said.count("\n") == 1
    assert Path(files[1]).read_bytes() == before
    left = {path.name for path in Path(files[1]).parent.glob("out*")}
    assert left == {"out.jsonl", "out.jsonl.manifest.json"}


def test_rows_are_written_as_they_are_answered_when_several_run_at_once(run_cli, files):
    write_rows(files[0], {"prompt": "long"}, {"prompt": "say two"}, {"prompt": "say three"})
    outcome = run_cli("batch", *files, "--parallel", "2", "--json")
    assert (outcome.status, json.loads(outcome.out)["parallel"]) == (0, 2)
    rows = read_rows(files[1])
    assert [row["index"] for row in rows] == [1, 2, 0]
    assert (rows[0]["answer"], rows[1]["answer"]) == ("two", "three")
    assert rows[2]["answer"].endswith("line 3999\n")
    again = run_cli("batch", *files, "--parallel", "2", "--json")
    assert json.loads(again.out)["skipped"] == 3


def test_the_rows_beside_one_that_kills_the_engine_are_answered(run_cli, files):
    write_rows(
        files[0], {"prompt": "length"}, {"prompt": "say one"}, {"prompt": "die"},
        {"prompt": "say two"}, {"prompt": "say three"},
    )  # fmt: skip
    outcome = run_cli("batch", *files, "--parallel", "4")
    assert outcome.status == 3
    assert "one after another" in outcome.err or "the row is tried once more" in outcome.err
    found = {row["index"]: row for row in read_rows(files[1])}
    assert found[2]["error"].startswith("The engine died of signal 9.")
    assert [found[index].get("answer") for index in (1, 3, 4)] == ["one", "two", "three"]
    assert found[0]["finish_reason"] == "length"


def test_a_run_of_several_rows_that_is_killed_goes_on(command, environment, files, run_cli):
    write_rows(files[0], *({"prompt": f"say {n}"} for n in range(3)), {"prompt": "forever"})
    process = subprocess.Popen(
        [*command, "batch", "-m", "tiny", *files, "--parallel", "2"], env=environment,
        stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not Path(files[1]).exists() or Path(files[1]).read_bytes().count(b"\n") < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    write_rows(files[0], *({"prompt": f"say {n}"} for n in range(3)), {"prompt": "say end"})
    outcome = run_cli("batch", *files, "--parallel", "2", "--json")
    summary = json.loads(outcome.out)
    assert (outcome.status, summary["skipped"], summary["answered"]) == (0, 3, 1)
    assert [row["index"] for row in sorted(read_rows(files[1]), key=lambda r: r["index"])] == [
        0, 1, 2, 3
    ]  # fmt: skip


def test_an_interrupt_cancels_all_rows_in_flight(command, environment, files):
    write_rows(files[0], {"prompt": "say one"}, {"prompt": "forever"}, {"prompt": "forever"})
    process = subprocess.Popen(
        [*command, "batch", "-m", "tiny", *files, "--parallel", "3"], env=environment,
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not Path(files[1]).exists() or not Path(files[1]).read_bytes():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert errors.startswith("3 rows: 1 answered, stopped: the same command goes on from here")
    assert [row["answer"] for row in read_rows(files[1])] == ["one"]


def test_saved_sequences_and_several_rows_at_once_exclude_each_other(run_cli, files):
    write_rows(files[0], {"prompt": "echo"})
    outcome = run_cli("batch", *files, "--prompt-cache", "--parallel", "2")
    assert outcome.status == 2
    assert outcome.err.startswith("localseek: --prompt-cache saves one sequence at a time.")
    assert run_cli("batch", *files, "--prompt-cache").status == 0
    assert json.loads(read_rows(files[1])[0]["answer"])["load"]["parallel"] == 1


@pytest.mark.parametrize("wanted", [0o600, 0o640])
def test_the_manifest_and_a_rewritten_output_are_as_closed_as_the_output(
    run_cli, tmp_path, wanted
):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "say one"}\n{"prompt": "fail"}\n')
    run_cli("batch", str(source), str(target), "-q")
    target.chmod(wanted)
    (tmp_path / "out.jsonl.manifest.json").unlink()
    run_cli("batch", str(source), str(target), "-q")  # the failed row is taken out and tried again
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("out*")}
    assert modes == {"out.jsonl": wanted, "out.jsonl.manifest.json": wanted}
