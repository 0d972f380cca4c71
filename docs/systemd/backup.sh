#!/bin/sh
# Signs where the log ends, and copies the database, or several, for root's timer or by hand:
#
#   install -m 0700 docs/systemd/backup.sh /usr/local/sbin/dezky-backup
#   dezky-backup FOLDER FILE...
#
# Of two databases name that of DATABASE_URL first. FOLDER can be written by the account of the
# services. Once a copy is whole, older ones of the same file go; they stay where nothing was signed,
# and the exit code is that of checkpoint_now then. 3 of it, signed and not in the bucket yet, is 0.
set -eu
umask 077
if [ $# -lt 2 ]; then
    echo 'dezky-backup FOLDER FILE...' >&2
    exit 2
fi
folder=$1
shift

code=0
dezky-audit checkpoint_now || code=$?
if [ "$code" -eq 3 ]; then code=0; fi

for file in "$@"; do
    name=copy-of-$(basename "$file" .sqlite3)
    copy=$folder/$name-$(date -u +%Y%m%dT%H%M%SZ).sqlite3
    rm -f "$folder/$name.part"
    runuser -u dezky-audit -- sqlite3 -cmd '.timeout 20000' "$file" \
        "VACUUM INTO '$folder/$name.part'"
    sync "$folder/$name.part"
    mv "$folder/$name.part" "$copy"
    for old in "$folder/$name"-[0-9]*Z.sqlite3; do
        if [ "$code" -eq 0 ] && [ "$old" != "$copy" ]; then rm "$old"; fi
    done
done
exit "$code"
