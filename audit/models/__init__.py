"""The log (hot), the ledger, the runs, the lease and what watches over them (default).

`AuditEvent`, `LogState` and `EventKey` live in the hot database; everything else in `default`.
"""

from .archive import ArchiveBatch, ArchiveRun, Lease
from .limits import HASH_DIGITS, PROJECTION_CHARACTERS
from .log import AuditEvent, EventKey, LogState
from .operations import Alarm, DayGuard, Heartbeat, Notice, RunRequest, SourceCount
from .own import OwnEvent, SeenSettings
from .trust import Checkpoint, CheckpointRefusal, VerificationRun

__all__ = [
    "HASH_DIGITS",
    "PROJECTION_CHARACTERS",
    "Alarm",
    "ArchiveBatch",
    "ArchiveRun",
    "AuditEvent",
    "Checkpoint",
    "CheckpointRefusal",
    "DayGuard",
    "EventKey",
    "Heartbeat",
    "Lease",
    "LogState",
    "Notice",
    "OwnEvent",
    "RunRequest",
    "SeenSettings",
    "SourceCount",
    "VerificationRun",
]
