"""What every message is, and how an error travels in one."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from gemd.errors import BY_REASON, GemdError, UnexpectedError


class Message(BaseModel):
    """Any of them: nothing unknown in it, and not to be changed."""

    # Infinities are ordinary here: the bias of a banned token, the log-probability of one.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="constants",
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


class ErrorBody(Message):
    """A domain error on its way through the socket."""

    reason: str
    message: str
    why: str = ""
    advice: tuple[str, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, error: GemdError) -> ErrorBody:
        """The error's four texts."""
        return cls(
            reason=error.reason,
            message=error.message,
            why=error.why,
            advice=error.advice,
            metadata=error.metadata,
        )

    def error(self) -> GemdError:
        """The same error on this side; unknown reasons become `UnexpectedError`."""
        kind = BY_REASON.get(self.reason, UnexpectedError)
        return kind(self.message, why=self.why, advice=self.advice, metadata=self.metadata)
