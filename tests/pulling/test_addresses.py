import pytest

from localseek.errors import UsageError
from localseek.store.hub.addresses import Named, named


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a/b", Named("a/b")),
        ("a/b:q4_k_m", Named("a/b", "", "q4_k_m")),
        ("a/b/", Named("a/b")),
        ("https://huggingface.co/a/b", Named("a/b")),
        ("https://huggingface.co/a/b/", Named("a/b")),
        ("http://www.huggingface.co/a/b?library=x#top", Named("a/b")),
        ("HTTPS://HuggingFace.co/a/B/tree/main", Named("a/B", "main")),
        ("https://huggingface.co/a/b/tree/refs%2Fpr%2F1/", Named("a/b", "refs/pr/1")),
        ("huggingface.co/a/b", Named("a/b")),
        ("hf.co/a/b:Q4_K_M", Named("a/b", "", "Q4_K_M")),
        ("https://hf.co/a/b/tree/v1.0", Named("a/b", "v1.0")),
    ],
)
def test_names_and_addresses_of_pages_are_understood(text, found):
    assert named(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://example.org/a/b", "is not an address of the hub"),
        ("https://huggingface.co/", "is not the page of a model"),
        ("https://huggingface.co/datasets/a/b", "is not the page of a model"),
        ("https://huggingface.co/a/b/discussions", "Write a/b."),
        ("https://huggingface.co/a/b/blob/main/x/m.gguf", "Write a/b --file 'x/m.gguf'."),
        ("https://huggingface.co/a/b/tree/main/Q8_0", "Write a/b --file 'Q8_0/*'."),
        ("a/b:", "no type follows the colon"),
    ],
)
def test_other_addresses_are_refused_with_what_to_write(text, said):
    with pytest.raises(UsageError) as caught:
        named(text)
    assert said in str(caught.value)


def test_a_page_is_pulled_at_its_revision(serve, run_cli):
    served = serve({"a/b": {"m.gguf": b"GGUF"}})
    older = next(iter(served.history["a/b"]))
    served.push("a/b", {"m.gguf": b"GGUF", "n.gguf": b"GGUF"})
    page = f"https://huggingface.co/a/b/tree/{older}"
    done = run_cli("pull", page, "--dry-run")
    assert (done.status, done.out) == (0, "m.gguf\n")
    done = run_cli("pull", page, "--revision", "main")
    assert done.status == 2 and "Give one of them." in done.err
