"""The errors that a user's input can cause. Each is one line: what, got, and the way out."""


class SmpoError(ValueError):
    """Something the user did or gave; the command line prints its message without a traceback."""


class ConfigError(SmpoError):
    """A recipe or an override that cannot be used."""


class DataError(SmpoError):
    """A pair set, image set or score table that cannot be used."""


class StaleError(SmpoError):
    """An artefact that was made from other inputs or another configuration than the ones asked for."""


class BusyError(SmpoError):
    """A folder that another process is writing into."""


class NonFiniteError(SmpoError):
    """A loss, gradient or weight that is NaN or infinite; nothing of it is saved."""


class ProcessError(SmpoError):
    """Another of the processes that share the work has ended, so that the work cannot be finished."""


class Stopped(SystemExit):
    """A signal asked the work to end; everything that the same command needs to go on is saved.

    Attributes:
        code: the exit code, 130 after Ctrl-C and 75 ("try again") after a scheduler's signal.
        message: one line for the user.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message

    def __reduce__(self) -> tuple[type["Stopped"], tuple[object, str]]:
        return Stopped, (self.code, self.message)  # SystemExit alone keeps the code; a worker's parent needs both
