#!/bin/sh
# manage.py with the settings and under the account of the services, for root's shell:
#
#   install -m 0700 docs/systemd/manage.sh /usr/local/sbin/dezky-audit
#   dezky-audit archive_now --dry-run
#
# Never run manage.py as root itself: files that it makes beside the database could then not be
# written by the services.
set -eu
umask 077
set -a
# shellcheck source=/dev/null
. /etc/dezky-audit/env
set +a
for file in /etc/dezky-audit/secrets/*; do
    export "$(basename "$file")=$(cat "$file")"
done
export DEZKY_ENV_FILE="" PYTHONDONTWRITEBYTECODE=1
cd /opt/dezky-audit
exec setpriv --reuid=dezky-audit --regid=dezky-audit --init-groups --no-new-privs \
    .venv/bin/python manage.py "$@"
