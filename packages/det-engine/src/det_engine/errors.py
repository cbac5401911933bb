"""Errors that reach the user as one message."""

from pathlib import Path


class EngineError(ValueError):
    """Wrong use or wrong input; the message says what was expected, what came and what to do."""


class Interrupted(BaseException):
    """Training was stopped by a signal, after its step ended and a checkpoint was written.

    Like `KeyboardInterrupt` it is no `Exception`, so that code which survives errors does not survive Ctrl-C.

    Attributes:
        status: exit status, 128 + signal number: 130 for SIGINT (Ctrl-C), 143 for SIGTERM, 129 for
            SIGHUP (a closed terminal).
        step: number of finished steps.
        checkpoint: file from which the run goes on.
    """

    def __init__(self, signal_number: int, step: int, checkpoint: Path | None) -> None:
        self.status = 128 + int(signal_number)
        self.step = step
        self.checkpoint = checkpoint
        where = f"; checkpoint: {checkpoint}" if checkpoint is not None else ""
        super().__init__(f"interrupted after step {step}{where}")
