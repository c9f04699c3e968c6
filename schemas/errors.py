"""The one exception tree. Each message is a single line: what is wrong, where, and what to do next."""


class SftpackError(Exception):
    """Something the user can mend; the command line prints it as one line and exits with 1."""


class InputError(SftpackError):
    """Raw data, a path or an option that can't be used as given."""


class CacheError(SftpackError):
    """An artefact that is missing, damaged, of another version, or made for something else."""


class ModelError(SftpackError):
    """A model or tokenizer that can't be found, loaded or trusted."""


class TrainError(SftpackError):
    """A training run that can't start or go on as configured."""
