#!/bin/sh
# manage.py with the settings and under the account of the services, for root's shell:
#
#   install -m 0700 docs/systemd/manage.sh /usr/local/sbin/dezky-audit
#   dezky-audit archive_now --dry-run
#
# Never run manage.py as root itself: files that it makes beside the database could then not be
# written by the services.
#
# /etc/dezky-audit/env has one NAME=value a line, no quotes. It is no shell: a value is taken as it
# stands, as systemd does, and a line that systemd would read otherwise is refused.
set -eu
umask 077
config=/etc/dezky-audit

refuse() {
    printf '%s/env, line %s: %s.\n' "$config" "$number" "$1" >&2
    exit 2
}

number=0
while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    line=${line#"${line%%[![:space:]]*}"}
    line=${line%"${line##*[![:space:]]}"}
    case $line in
        '' | '#'* | ';'*) continue ;;
        *\\*) refuse 'systemd takes a backslash for more than it is: leave it away' ;;
        *=*) ;;
        *) refuse 'it is not NAME=value' ;;
    esac
    name=${line%%=*}
    value=${line#*=}
    value=${value#"${value%%[![:space:]]*}"}
    case $name in
        '' | [0-9]* | *[!A-Za-z0-9_]*) refuse 'it is not NAME=value' ;;
    esac
    case $value in
        \"* | \'*) refuse "systemd takes the quotes away: write $name=value without them" ;;
    esac
    export "$name=$value"
done <"$config/env"

# A secret is called as its variable is; NAME~ or NAME.bak is what an editor has left.
for file in "$config"/secrets/*; do
    name=${file##*/}
    case $name in
        [0-9]* | *[!A-Z0-9_]*) continue ;;
    esac
    value=$(cat "$file")
    export "$name=$value"
done
export DEZKY_ENV_FILE="" PYTHONDONTWRITEBYTECODE=1
cd /opt/dezky-audit
exec setpriv --reuid=dezky-audit --regid=dezky-audit --init-groups --no-new-privs \
    .venv/bin/python manage.py "$@"
