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
