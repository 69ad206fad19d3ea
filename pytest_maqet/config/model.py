"""What all models of the configuration have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pytest_maqet.masking import masked


class Model(BaseModel):
    """A part of the configuration: never changed, and without keys that nobody knows."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        ser_json_inf_nan="strings",
        protected_namespaces=(),
    )

    def __repr__(self) -> str:
        """As pydantic has it, secrets masked."""
        return masked(super().__repr__())

    def __str__(self) -> str:
        """As `repr`, without the name."""
        return masked(super().__str__())
