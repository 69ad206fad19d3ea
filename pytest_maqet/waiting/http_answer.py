"""The value of `wait.http`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HttpAnswer:
    """An HTTP answer: status, reason, headers (names in lower case) and the whole body."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, UTF-8 with replacement."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body parsed as JSON; raises ValueError when it is none."""
        return json.loads(self.body)
