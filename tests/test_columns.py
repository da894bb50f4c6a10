"""Tables as wide as the terminal."""

from shapes import latent_shape

from localseek.placing.deciding import decide
from localseek.placing.placement import Wishes
from localseek.system.machine import imagined
from localseek.terminal.columns import folded, table
from localseek.terminal.drawing import layer_rows

ROWS = [
    ("answers", "tok/s", "of plain"),
    ("drafts off", "2,337", ""),
    ("always 1", "82", "0.95"),
]


def test_cells_stand_in_columns_where_there_is_room():
    lines = ["answers     tok/s  of plain", "drafts off  2,337", "always 1       82      0.95"]
    assert table(ROWS) == table(ROWS, 27) == lines
    assert table(ROWS, left=3)[2] == "always 1    82     0.95"


def test_a_row_that_would_break_is_written_one_value_a_line():
    assert table(ROWS, 26) == [
        "answers: drafts off",
        "  tok/s     2,337",
        "answers: always 1",
        "  tok/s     82",
        "  of plain  0.95",
    ]
    assert table([("", "size"), ("GPU0", "1 GB")], 5) == ["GPU0", "  size  1 GB"]


def test_sentences_are_broken_between_words():
    lines = ["cache: 1,152 B", "", "- layers 0–61 and the output with their caches on GPU0"]
    assert list(folded(lines, None)) == lines
    assert list(folded(lines, 20)) == [
        "cache: 1,152 B", "",
        "- layers 0–61 and", "  the output with", "  their caches on", "  GPU0",
    ]  # fmt: skip


def test_layers_are_drawn_within_the_terminal():
    shape = latent_shape()
    placement = decide(shape, imagined((24 * 10**9,), 128 * 10**9, 16), Wishes())
    wide, narrow = layer_rows(shape, placement), layer_rows(shape, placement, 40)
    assert max(map(len, wide)) > 70 and max(map(len, narrow)) <= 40

    def drawn(lines: list[str]) -> str:
        return "".join(line.split()[1] for line in lines if line.startswith("GPU0"))

    assert drawn(narrow) == drawn(wide) and len(drawn(wide)) == len(shape.layers)
    assert len(layer_rows(shape, placement, 5)) == len(layer_rows(shape, placement, 22))
