"""The hot log: append, ordered range, range delete. The one place that knows database engines.

Why nothing can be lost or slipped in here:

- Every append locks the one `LogState` row first, so writers queue and no seq is ever skipped
  or given twice; the primary key is the backstop.
- Events, their keys and the new head are written in one transaction: what was acknowledged is
  there as a whole, and what was not acknowledged is not there at all.
- The floor is raised only under the same lock, so no append can ever write at or below it, and
  deleting what is at or below it needs no lock at all.
- A head that is behind the ledger, or is not the newest row's, means that hot was rolled back or
  changed: nothing is appended then, since it would give the same seqs to other events.
"""

from .appending import append, uuid7
from .database import BusyError, bound_page_cache, explain, write_transaction
from .drafts import Appended, Draft, conflict_key, encode, project, short_digest
from .rows import (
    as_bytes,
    delete_rows,
    last_seq_before,
    measure,
    oldest_seq,
    read_range,
    read_sizes,
)
from .state import (
    FenceError,
    RolledBackError,
    current_state,
    raise_fence,
    raise_floor,
    state_beside_ledger,
)

__all__ = [
    "Appended",
    "BusyError",
    "Draft",
    "FenceError",
    "RolledBackError",
    "append",
    "as_bytes",
    "bound_page_cache",
    "conflict_key",
    "current_state",
    "delete_rows",
    "encode",
    "explain",
    "last_seq_before",
    "measure",
    "oldest_seq",
    "project",
    "raise_fence",
    "raise_floor",
    "read_range",
    "read_sizes",
    "short_digest",
    "state_beside_ledger",
    "uuid7",
    "write_transaction",
]
