"""Reading the environment: values, secrets that may live in files, database URLs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
SQLITE_PRAGMAS = {
    # An acknowledged event must survive a power cut, hence FULL and not NORMAL.
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "cache_size": "-65536",
}
SQLITE_BUSY_SECONDS = 20


class Reader(environ.Env):  # type: ignore[misc]  # django-environ has no type hints
    """`environ.Env` that also takes `NAME_FILE` for a secret and knows our engines."""

    def secret(self, name: str) -> str:
        """Return the secret `NAME`, or the content of the file that `NAME_FILE` names.

        Empty where neither is set. Raises ImproperlyConfigured where both are, or where
        the file cannot be read.
        """
        # Read as it is: a secret that begins with a dollar sign names no other variable.
        value = str(self.ENVIRON.get(name, ""))
        path: str = self.str(f"{name}_FILE", default="")
        if not path:
            return value
        if value:
            raise ImproperlyConfigured(f"Both {name} and {name}_FILE are set: remove one of them.")
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ImproperlyConfigured(
                f"{name}_FILE names {path}, which cannot be read ({reason}): "
                "correct the path or its permissions."
            ) from None

    def switch(self, name: str) -> bool:
        """Return whether a switch is on; unset is off.

        Raises ImproperlyConfigured at any other word: a misspelt one must not mean off.
        """
        text = str(self.ENVIRON.get(name, "")).strip().lower()
        if text in self.BOOLEAN_TRUE_STRINGS:
            return True
        if text in {"", "false", "off", "no", "n", "0"}:
            return False
        raise ImproperlyConfigured(f"{name} is '{text}': use 'true' or 'false'.")

    def number(self, name: str, default: int) -> int:
        """Return a whole number; raises ImproperlyConfigured where there is something else."""
        text = str(self.ENVIRON.get(name, "")).strip()
        try:
            return int(text) if text else default
        except ValueError:
            raise ImproperlyConfigured(
                f"{name} is '{text}', which is not a whole number: correct it, or leave it empty "
                f"for {default}."
            ) from None

    def email(self, name: str) -> dict[str, Any]:
        """Return Django's e-mail settings of the URL in `name`; without one, mail goes nowhere.

        Raises ImproperlyConfigured where it is none.
        """
        url = self.secret(name) or "dummymail://"
        try:
            config: dict[str, Any] = self.email_url_config(url)
        except (KeyError, ValueError, ImproperlyConfigured):
            raise ImproperlyConfigured(
                f"{name} is no URL of a mail server: use smtp+tls://USER:PASSWORD@HOST:587 "
                "(STARTTLS), smtps://… (TLS), smtp://HOST:25, or consolemail://."
            ) from None
        return config

    def database(self, name: str, default: str = "") -> dict[str, Any]:
        """Return Django's settings of the database at the URL in `name`, none if it is unset.

        An engine that this project cannot use becomes Django's dummy engine with its name
        under `UNSUPPORTED`, so that the system checks can say what to do instead of an
        import failing first. Raises ImproperlyConfigured where its timeout is no number.
        """
        url = self.secret(name) or default
        if not url:
            return {}
        scheme = url.partition(":")[0].lower()
        if scheme != "sqlite":
            return {"ENGINE": "django.db.backends.dummy", "UNSUPPORTED": scheme}
        config: dict[str, Any] = self.db_url_config(url)
        if config["NAME"] != ":memory:":
            # From wherever a command is typed, it is the same file.
            config["NAME"] = str(BASE_DIR / config["NAME"])
        config["OPTIONS"] = {
            "timeout": SQLITE_BUSY_SECONDS,
            "transaction_mode": "IMMEDIATE",
            "init_command": ";".join(f"PRAGMA {k}={v}" for k, v in SQLITE_PRAGMAS.items()),
            **config.get("OPTIONS", {}),
        }
        config["CONN_HEALTH_CHECKS"] = True
        if not isinstance(config["OPTIONS"]["timeout"], int):
            raise ImproperlyConfigured(
                f"The timeout in {name} is no whole number of seconds: correct it, or leave it "
                f"out for {SQLITE_BUSY_SECONDS}."
            )
        return config
