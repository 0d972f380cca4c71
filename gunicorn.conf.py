"""How gunicorn serves, wherever it is started from this folder."""

from dezky.settings import LOGGING

logconfig_dict = LOGGING

# Whom to believe what it has forwarded, TRUSTED_PROXIES alone decides (dezky.proxies); gunicorn by
# itself would believe whoever connects from this machine.
secure_scheme_headers: dict[str, str] = {}
forwarded_allow_ips = ""
