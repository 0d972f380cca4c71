"""What can be wrong with a log, apart from what merely could not be looked at."""


class AuditError(Exception):
    """Base of every error of this project; its text is one sentence with what to do next."""


class RecordError(AuditError):
    """An event cannot become a record: it breaks a rule of the format."""


class TamperedError(AuditError):
    """What is there is not what was signed or chained."""


class EndedKeyError(TamperedError):
    """A document is of a day after the end of a key that signed it."""


class UnverifiableError(AuditError):
    """It cannot be said whether a thing is right: a key is not known."""


class UnreachableError(UnverifiableError):
    """Where the objects are does not answer: nothing more can be looked at."""


class GapError(AuditError):
    """A seq, an object or a row that must be there is not."""
