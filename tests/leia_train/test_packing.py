"""Positions and labels of packed rows."""

import numpy as np

from leia_train.insertion import END, MARKER, NAME, TEXT
from leia_train.packing import Stretch, pack

STRETCH = Stretch(
    tokens=np.array([5, 6, 90, 50, 91, 2, 7, 2, 8, 9], np.int32),
    kinds=np.array([TEXT, TEXT, MARKER, NAME, MARKER, END, TEXT, END, TEXT, TEXT], np.uint8),
    begins=np.array([0, 0, 0, 0, 0, 0, 1, 0, 1, 0], bool),
)


def packed(**options):
    """The rows as lists: positions and labels."""
    rows = pack(STRETCH, 5, **{"name_loss": True, "cross_document": False, **options})
    assert rows.input_ids.tolist() == [[5, 6, 90, 50, 91], [2, 7, 2, 8, 9]]
    return rows.position_ids.tolist(), rows.labels.tolist()


def test_positions_restart_and_first_tokens_and_markers_have_no_label():
    """A continued document is a segment of its own; EOS is learnt; names are in the loss."""
    assert packed() == (
        [[0, 1, 2, 3, 4], [0, 0, 1, 0, 1]],
        [[-100, 6, -100, 50, -100], [-100, -100, 2, -100, 9]],
    )


def test_names_can_be_left_out_of_the_loss():
    """Only the name's label goes."""
    assert packed(name_loss=False)[1] == [[-100, 6, -100, -100, -100], [-100, -100, 2, -100, 9]]


def test_cross_document_rows_are_one_segment():
    """As in the reference: positions run through, document starts are learnt; the row's first token is never predicted."""
    assert packed(cross_document=True) == (
        [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]],
        [[-100, 6, -100, 50, -100], [-100, 7, 2, 8, 9]],
    )


def test_counts_are_of_labels_and_of_inserted_tokens():
    """Four labels; a name token and two markers."""
    rows = pack(STRETCH, 5, name_loss=True, cross_document=False)
    assert (rows.label_count, rows.inserted_count) == (4, 3)
    assert (rows.part(1, 2).label_count, rows.part(1, 2).inserted_count) == (2, 0)


def test_the_mean_segment_is_what_a_token_sees_around_it():
    """Weighted by tokens: 3 and 1 in one row, 2 and 2 in the other."""
    begins = np.array([1, 0, 0, 1, 0, 0, 1, 0], bool)
    tokens, kinds = np.arange(8, dtype=np.int32), np.zeros(8, np.uint8)
    rows = pack(Stretch(tokens=tokens, kinds=kinds, begins=begins), 4, name_loss=True, cross_document=False)
    assert rows.mean_segment == (9 + 1 + 4 + 4) / 8
    whole = pack(Stretch(tokens=tokens, kinds=kinds, begins=begins), 4, name_loss=True, cross_document=True)
    assert whole.mean_segment == 4
