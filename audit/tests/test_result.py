"""What a run answers when something outside of it is wrong."""

from __future__ import annotations

import errno
import tempfile

import pytest
from django.db import OperationalError

from audit.format.errors import GapError
from audit.log import RolledBackError, append
from audit.models import LogState
from audit.result import Outcome, Result, sentence, with_boundary

from .factories import drafts


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_names_the_folder_and_what_to_do(number: int) -> None:
    text = sentence(OSError(number, "no room"))
    assert text.startswith(f"There is no room in {tempfile.gettempdir()}, where")
    assert "set TMPDIR" in text


def test_our_own_errors_are_sentences_already_and_others_get_their_kind() -> None:
    assert sentence(GapError("Seq 2 is missing.")) == "Seq 2 is missing."
    assert sentence(OSError(errno.EIO, "broken")) == "OSError: [Errno 5] broken"
    assert "stayed locked" in sentence(OperationalError("database is locked"))


@pytest.mark.django_db
def test_a_boundary_that_cannot_be_read_is_not_called_none() -> None:
    append(drafts(3))
    assert with_boundary(Result(Outcome.NOTHING_DUE)).boundary_known
    LogState.objects.update(origin="another")
    result = with_boundary(Result(Outcome.NOTHING_DUE))
    assert not result.boundary_known
    assert "The tier boundary could not be read: This log's origin" in result.notes[0]
    with pytest.raises(RolledBackError) as caught:
        append(drafts(1))
    told = with_boundary(Result(Outcome.REFUSED, error=str(caught.value)))
    assert told.notes == []  # once is enough
