import random
import struct
import time
from pathlib import Path

import pytest
from fakes.gguf_file import (
    DENSE,
    DENSE_TENSORS,
    EXPERTS,
    EXPERTS_TENSORS,
    build,
    text,
    write_dense,
    write_experts,
)  # fmt: skip

from localseek.errors import ModelError
from localseek.gguf.info import is_later_part, read_info
from localseek.gguf.runnable import check_runnable


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check_runnable(read_info(path))
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_a_dense_model_is_described(path):
    info = read_info(write_dense(path))
    check_runnable(info)
    assert (info.architecture, info.name, info.type_name) == ("llama", "Tiny", "Q8_0")
    assert (info.context_length, info.block_count, info.nextn_layers) == (2048, 1, 0)
    assert (info.n_params, info.experts, info.chat_template) == (10_560, (0, 0), "{{ x }}")
    assert info.size_bytes == path.stat().st_size
    embedding = info.tensors[0]
    assert (embedding.name, embedding.shape, embedding.type) == (
        "token_embd.weight", (64, 100), "Q8_0",
    )  # fmt: skip
    assert (embedding.offset % 32, embedding.size_bytes) == (0, 200 * 34)
    assert info.tensors[-1].offset + info.tensors[-1].size_bytes == info.size_bytes


def test_experts_and_the_draft_layer_are_described(path):
    info = read_info(write_experts(path))
    check_runnable(info)
    assert (info.experts, info.nextn_layers) == ((8, 2), 1)


def test_long_arrays_stay_in_the_file_until_asked_for(path):
    info = read_info(write_dense(path))
    assert not isinstance(info.metadata["tokenizer.ggml.tokens"], tuple)
    assert info.array("tokenizer.ggml.tokens")[99] == "t99"


def test_a_vocabulary_of_129280_tokens_is_passed_over_quickly(path):
    tokens = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 129_280)
    tokens += b"".join(text(f"token{i}") for i in range(129_280))
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    path.write_bytes(head + tokens)
    read_info(path)
    started = time.process_time()
    assert len(read_info(path).array("tokenizer.ggml.tokens")) == 129_280
    read_and_given = time.process_time() - started
    started = time.process_time()
    read_info(path)
    assert time.process_time() - started < min(0.15, read_and_given)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a GGUF file: it has 0 bytes"),
        (b"<html>" + bytes(100), "is not a GGUF file. `localseek convert` makes one"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is big-endian. Only little-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "has GGUF version 1; 2 and 3 can be read"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "it claims 9,223,372,036,854,775,808 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "1,099,511,627,776 metadata entries"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60) + bytes(32),
            "a metadata key claims 1,152,921,504,606,846,976 bytes",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 99) + bytes(16),
            "k has the unknown value type 99",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k")
            + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 4, 0),
            "k is an array of unknown or nested type 9",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k")
            + struct.pack("<IIQ", 9, 4, 2**62) + bytes(64),
            "k claims 4,611,686,018,427,387,904 elements",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k")
            + struct.pack("<IIQ", 9, 8, 100) + struct.pack("<Q", 2**63) + bytes(800),
            "a text in k reaches beyond the end of the file",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * (text("k") + struct.pack("<II", 4, 1)),
            "the metadata key 'k' is empty, broken or there twice",
        ),
    ],
)  # fmt: skip
def test_a_broken_header_is_refused_with_the_reason(path, content, words):
    assert words in refusal(path, content)


@pytest.mark.parametrize(
    ("heads", "shared", "latent", "words"),
    [
        (4, 3, 0, "4 attention heads share 3 heads of keys and values"),
        (4, 0, 0, "4 attention heads share 0 heads"),
        (4, 8, 0, "4 attention heads share 8 heads"),
        (4, 2, 96, "2 heads of keys and values, where latent attention has 1"),
    ],
)
def test_heads_on_which_llama_cpp_asserts_are_refused(path, heads, shared, latent, words):
    counts = {"attention.head_count": heads, "attention.head_count_kv": shared}
    if latent:
        counts |= {"attention.key_length_mla": latent, "attention.value_length_mla": latent}
    named = {f"deepseek2.{key}": value for key, value in counts.items()}
    assert words in refusal(path, build(EXPERTS | named, EXPERTS_TENSORS))


def test_a_file_that_was_cut_off_says_how_much_is_missing(path):
    whole = build(DENSE, DENSE_TENSORS)
    said = refusal(path, whole[:-1000]).replace(f"{len(whole):,}", "11,904")
    assert "is truncated: 1,000 of 11,904 bytes are missing" in said


def test_every_shorter_file_is_refused(path):
    whole = build(EXPERTS, EXPERTS_TENSORS)
    for length in range(0, len(whole), 37):
        refusal(path, whole[:length])


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([("a", (64,), 0), ("a", (64,), 0)], "the tensor name 'a' is empty, broken or there twice"),
        ([("a" * 64, (64,), 0)], "a tensor name claims 64 bytes, at most 63"),
        ([("a\0b", (64,), 0)], "is empty, broken or there twice"),
        ([("a", (33,), 8)], "tensor a has rows of 33, no multiple of 32"),
        ([("a", (0,), 0)], "tensor a has the impossible shape [0]"),
        ([("a", (1, 1, 1, 1, 1), 0)], "tensor a claims 5 dimensions"),
    ],
)
def test_a_broken_tensor_is_refused_with_the_reason(path, tensors, words):
    assert words in refusal(path, build(DENSE, tensors))


def test_a_shape_whose_product_wraps_around_is_refused(path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    entry = text("a") + struct.pack("<I4QIQ", 4, 2**32, 2**32, 1, 1, 0, 0)
    assert "impossible shape [4294967296, 4294967296, 1, 1]" in refusal(path, head + entry)


def test_tensors_that_overlap_are_refused(path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 0)
    entries = b"".join(text(n) + struct.pack("<IQIQ", 1, 64, 0, 0) for n in ("a", "b"))
    assert "tensor b is at offset 0, not at 256" in refusal(path, head + entries + bytes(1024))


def test_an_unknown_tensor_type_hints_at_a_newer_version(path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
    entry = text("a") + struct.pack("<IQIQ", 1, 64, 77, 0)
    assert "unknown type 77. The file may need a newer localseek" in refusal(path, head + entry)


@pytest.mark.parametrize("alignment", [0, 3, 48])
def test_an_alignment_that_is_no_power_of_two_is_refused(path, alignment):
    content = build({**DENSE, "general.alignment": alignment}, DENSE_TENSORS)
    assert f"its general.alignment is {alignment}" in refusal(path, content)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"expert_group_used_count": 4}, "4 of 4 expert groups are used"),
        ({"expert_group_count": 3}, "8 experts do not divide into 3 groups"),
        ({"expert_group_count": 8}, "8 experts in 8 groups"),
        ({"expert_used_count": 9}, "9 of 8 experts are used"),
        ({"expert_count": 0}, "no experts, but 2 used"),
        ({"expert_count": 4096}, "2 of 4096 experts"),
        ({"nextn_predict_layers": 2}, "2 multi-token prediction layers of 2"),
        ({"block_count": 3}, "but blk.2.nextn.eh_proj.weight is not there"),
        ({"block_count": 0}, "it claims 0 layers"),
        ({"block_count": 4000}, "it claims 4000 layers, 1 to 512"),
        ({"block_count": "two"}, "deepseek2.block_count is 'two', not a count"),
        ({"attention.key_length_mla": 192}, "only one of attention.key_length_mla"),
        ({"rope.scaling.type": "spiral"}, "its rope.scaling.type is 'spiral'"),
    ],
)
def test_what_would_abort_llama_cpp_is_refused(path, changes, words):
    named = {f"deepseek2.{key}": value for key, value in changes.items()}
    assert words in refusal(path, build({**EXPERTS, **named}, EXPERTS_TENSORS))


def test_a_draft_layer_without_its_tensors_is_refused(path):
    words = refusal(path, build(EXPERTS, EXPERTS_TENSORS[:-1]))
    assert "nextn_predict_layers 1), but blk.1.nextn.hnorm.weight is not there" in words


def test_a_vocabulary_without_tensors_is_no_model(path):
    assert "it holds no tensors" in refusal(path, build(DENSE, []))


def vocabulary(count: int) -> list[str]:
    return [f"t{i}" for i in range(count)]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([*vocabulary(99), "t5"], "its tokens 5 and 99 have the same text 't5'"),
        ([*vocabulary(9), "t5"], "its tokens 5 and 9 have the same text 't5'"),
        ([*vocabulary(99), "t5\0x"], "its tokens 5 and 99 have the same text 't5'"),
        ([*vocabulary(99), "", "[EMPTY_99]"], "tokens 99 and 100 have the same text '[EMPTY_99]'"),
        (list(range(100)), "tokenizer.ggml.tokens is not a list of strings"),
        ([1, 2], "tokenizer.ggml.tokens is not a list of strings"),
        ("t0", "tokenizer.ggml.tokens is not a list of strings"),
    ],
)
def test_tokens_that_would_abort_llama_cpp_are_refused(path, tokens, words):
    content = build({**DENSE, "tokenizer.ggml.tokens": tokens}, DENSE_TENSORS)
    assert words in refusal(path, content)


def test_two_empty_tokens_can_run(path):
    check_runnable(read_info(write_dense(path, **{"tokenizer.ggml.tokens": ["", "a", ""]})))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": [0.0] * 99}, "tokenizer.ggml.scores has 99 entries for 100 tokens"),
        ({"scores": [0.0] * 9}, "tokenizer.ggml.scores has 9 entries for 100 tokens"),
        ({"token_type": [1] * 101}, "tokenizer.ggml.token_type has 101 entries for 100 tokens"),
        ({"token_type": 1}, "tokenizer.ggml.token_type has 0 entries for 100 tokens"),
        ({"token_type": [True] * 100}, "tokenizer.ggml.token_type holds no 32-bit numbers"),
    ],
)
def test_token_facts_that_do_not_fit_the_tokens_are_refused(path, changes, words):
    named = {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    assert words in refusal(path, build({**DENSE, **named}, DENSE_TENSORS))


def test_a_vocabulary_of_152000_tokens_is_checked_in_half_a_second(path):
    tokens = vocabulary(152_000)
    facts = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * len(tokens)}
    info = read_info(write_dense(path, **facts))
    started = time.process_time()
    check_runnable(info)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("items", [0, 1, 100])
def test_a_text_of_more_than_64_megabytes_is_refused(path, items):
    size = 70_000_000
    value = struct.pack("<IIQ", 9, 8, items) + text("t") * (items - 1) if items else b"\x08\0\0\0"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + value + struct.pack("<Q", size)
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(len(head) + size)  # a hole: takes no room
    with pytest.raises(ModelError, match="at most 64,000,000 are allowed"):
        read_info(path)


def split(folder: Path, count: int = 2) -> list[Path]:
    paths = []
    for number in range(count):
        path = folder / f"m-{number + 1:05}-of-{count:05}.gguf"
        own = [DENSE_TENSORS[number]]
        facts = {"split.no": number, "split.count": count}
        path.write_bytes(build({**DENSE, **facts} if number == 0 else facts, own))
        paths.append(path)
    return paths


def test_a_split_model_is_one_model(tmp_path):
    first, second = split(tmp_path)
    info = read_info(first)
    check_runnable(info)
    assert (info.parts, len(info.tensors)) == ((first, second), 2)
    assert info.size_bytes == first.stat().st_size + second.stat().st_size
    assert is_later_part(second) and not is_later_part(first)


def test_a_split_model_with_a_part_missing_is_refused(tmp_path):
    first, second = split(tmp_path)
    second.unlink()
    assert f"it lacks 1 of its parts ({second.name})" in refusal(first, first.read_bytes())


def test_a_later_part_names_the_first(tmp_path):
    first, second = split(tmp_path)
    assert f"is part 2 of 2. Open {first}." in refusal(second, second.read_bytes())


def test_parts_that_have_changed_their_names_are_refused(tmp_path):
    first, second, third = split(tmp_path, 3)
    second.rename(tmp_path / "aside")
    third.rename(second)
    (tmp_path / "aside").rename(third)
    with pytest.raises(ModelError) as caught:
        read_info(first)
    assert str(caught.value).startswith(f"{second} is part 3 by what it holds. Give the parts")
    second.write_bytes(build({}, []))
    with pytest.raises(ModelError, match=f"{second.name} is not a part of a model"):
        read_info(first)


def test_a_damaged_part_is_refused_as_well(tmp_path):
    first, second = split(tmp_path)
    second.write_bytes(second.read_bytes()[:-64])
    assert f"{second} is truncated" in refusal(first, first.read_bytes())


def mutate(random_: random.Random, content: bytearray) -> bytes:
    for _ in range(random_.choice((1, 1, 2, 4))):
        place = random_.randrange(len(content))
        kind = random_.randrange(5)
        if kind == 0:
            content[place] = random_.randrange(256)
        elif kind == 1:
            content[place : place + 8] = struct.pack("<Q", random_.choice((0, 1, 2**31, 2**64 - 1)))
        elif kind == 2:
            del content[place : place + random_.randrange(1, 40)]
        elif kind == 3:
            content[place:place] = content[: random_.randrange(1, 40)]
        else:
            content[place : place + 4] = struct.pack("<I", random_.randrange(16))
    return bytes(content)


def test_only_model_errors_come_out_of_three_thousand_mutated_files(path):
    random_ = random.Random(20261123)
    small = {k: v for k, v in EXPERTS.items() if k != "general.name"}
    whole = build({**small, "long": list(range(70)), "words": ["x"] * 70}, EXPERTS_TENSORS[2:])
    header = len(whole) - 8192
    refused = 0
    for _ in range(3000):
        content = mutate(random_, bytearray(whole[:header])) + whole[header:]
        path.write_bytes(content)
        try:
            check_runnable(read_info(path))
        except ModelError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert 1000 < refused < 3000
