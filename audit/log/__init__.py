"""The hot log: append, ordered range, range delete. The one place that knows database engines.

Why nothing can be lost or slipped in here:

- Every append locks the one `LogState` row first, so writers queue and no seq is ever skipped
  or given twice; the primary key is the backstop.
- Events, their keys and the new head are written in one transaction: what was acknowledged is
  there as a whole, and what was not acknowledged is not there at all.
- The floor is raised only under the same lock, so no append can ever write at or below it, and
  deleting what is at or below it needs no lock at all.
- A head that is behind the ledger or a checkpoint, or is not the newest row's, or a link that is
  not the newest checkpoint's, means that hot was rolled back or changed: nothing is appended
  then, since it would give the same seqs to other events. What the bucket claims is held against
  the log once in each process.
"""

from .appending import append, has, uuid7
from .database import (
    BusyError,
    bound_page_cache,
    explain,
    is_full,
    is_lock_timeout,
    write_transaction,
)
from .drafts import TEXT_COLUMNS, Appended, Draft, conflict_key, encode, project, short_digest
from .keys import forget_keys
from .rows import (
    WholeRow,
    as_bytes,
    as_hash,
    count_by_source,
    delete_rows,
    last_seq_before,
    measure,
    newest_seq,
    oldest_seq,
    read_range,
    read_sizes,
    read_whole,
)
from .state import (
    Claim,
    FenceError,
    RolledBackError,
    check_checkpoint,
    check_file,
    current_state,
    link_at,
    lookout,
    newest_checkpoint,
    raise_fence,
    raise_floor,
    state_beside_ledger,
)

__all__ = [
    "TEXT_COLUMNS",
    "Appended",
    "BusyError",
    "Claim",
    "Draft",
    "FenceError",
    "RolledBackError",
    "WholeRow",
    "append",
    "as_bytes",
    "as_hash",
    "bound_page_cache",
    "check_checkpoint",
    "check_file",
    "conflict_key",
    "count_by_source",
    "current_state",
    "delete_rows",
    "encode",
    "explain",
    "forget_keys",
    "has",
    "is_full",
    "is_lock_timeout",
    "last_seq_before",
    "link_at",
    "lookout",
    "measure",
    "newest_checkpoint",
    "newest_seq",
    "oldest_seq",
    "project",
    "raise_fence",
    "raise_floor",
    "read_range",
    "read_sizes",
    "read_whole",
    "short_digest",
    "state_beside_ledger",
    "uuid7",
    "write_transaction",
]
