"""What a request may send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

MAX_BYTES = 4_096


class TooLargeError(APIException):
    """The body is larger than anything that is understood here."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = f"The body is larger than {MAX_BYTES:,} bytes."


class SmallJsonParser(BaseParser):
    """JSON that is read no further than a small body reaches.

    Django's limit on a body's size holds for what Django reads, which this is not.
    """

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the value; raises ParseError and TooLargeError."""
        data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise TooLargeError
        try:
            return json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise ParseError("The body is not JSON.") from error
