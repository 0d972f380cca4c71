"""The environment of a test session: loaded before Django's settings are (see pytest.ini).

Nothing of the developer's own `.env` gets in. Secrets are made up anew each time.
"""

from __future__ import annotations

import base64
import os
import secrets
import tempfile

FOLDER = tempfile.mkdtemp(prefix="dezky-audit-tests-")

os.environ.update(
    DEZKY_ENV_FILE="",
    DEBUG="false",
    SECRET_KEY=secrets.token_urlsafe(48),
    ALLOWED_HOSTS="127.0.0.1,localhost",
    DATABASE_URL=f"sqlite:///{FOLDER}/unused.sqlite3",
    AUDIT_ORIGIN="dezky-test",
    AUDIT_SIGNING_KEY=base64.b64encode(secrets.token_bytes(32)).decode(),
    AUDIT_COLD_ENDPOINT="http://127.0.0.1:9",
    AUDIT_COLD_BUCKET="dezky-audit",
    AUDIT_COLD_ACCESS_KEY="test-access",
    AUDIT_COLD_SECRET_KEY=secrets.token_urlsafe(24),
    AUDIT_COLD_PREFIX="audit/v1",
    LOG_FORMAT="line",
    LOG_LEVEL="WARNING",
)
for name in (
    "HOT_DATABASE_URL",
    "REDIS_URL",
    "ARCHIVE_ENABLED",
    "AUDIT_COLD_SSE",
    "AUDIT_COLD_TIMEOUT_SECONDS",
    "AUDIT_COLD_ATTEMPTS",
    "AUDIT_CONFIRM",
    "AUDIT_SIGNING_KEYS",
    "TRUSTED_PROXIES",
):
    os.environ.pop(name, None)
