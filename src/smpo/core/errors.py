"""The errors that a user's input can cause. Each is one line: what is wrong, the value, and what to do."""


class SmpoError(ValueError):
    """An error in what the user gave; the command line prints its message without a traceback."""


class ConfigError(SmpoError):
    """A recipe or an override that cannot be used."""


class DataError(SmpoError):
    """A pair set, image set or score table that cannot be used."""


class StaleError(SmpoError):
    """An artefact that was made from other inputs or settings than those of this call."""


class BusyError(SmpoError):
    """A folder into which another process writes."""


class NonFiniteError(SmpoError):
    """A loss, gradient or weight that is NaN or infinite; the step is not saved."""


class ProcessError(SmpoError):
    """One of the processes that share the work has ended, so the others cannot finish it."""


class Stopped(SystemExit):
    """The program ends because of a signal; the same command can continue the work.

    Attributes:
        code: exit code, 130 after Ctrl-C and 75 ("try again") after a scheduler's signal.
        message: one line for the user.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message

    def __reduce__(self) -> tuple[type["Stopped"], tuple[object, str]]:
        return Stopped, (self.code, self.message)  # SystemExit pickles the code alone; a worker's parent needs both
