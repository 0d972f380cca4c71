"""The ledger page by page."""

from __future__ import annotations

from rest_framework.exceptions import NotFound
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request


class LedgerPages(CursorPagination):
    """Newest first; a page stays what it was while new batches come before it."""

    ordering = "-start_seq"
    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 500

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Return where the page begins; raises NotFound where no page of ours said so."""
        cursor = super().decode_cursor(request)
        position = "" if cursor is None or cursor.position is None else str(cursor.position)
        if position and not (position.isascii() and position.isdecimal()):
            raise NotFound(self.invalid_cursor_message)
        return cursor
