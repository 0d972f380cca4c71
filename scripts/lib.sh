# shellcheck shell=bash
# What the scripts share; sourced, never run. The working directory is the project's.

# fail SENTENCE: say what is wrong and end.
fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# now: microseconds, whatever the locale's decimal sign.
now() {
    printf '%s' "${EPOCHREALTIME/[.,]/}"
}

# seconds_since START: "12.3 s".
seconds_since() {
    local tenths=$((($(now) - $1) / 100000))
    printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

# find_python: print the first Python that is new enough and can make virtual environments.
find_python() {
    local candidate incomplete=
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
        command -v "$candidate" >/dev/null || continue
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        incomplete=$candidate
    done
    if [[ -n $incomplete ]]; then
        fail "$incomplete has no venv module: install it with 'apt install python3-venv'."
    fi
    fail "Python 3.11 or newer is needed: install it with 'apt install python3 python3-venv'."
}

# holds WHAT: whether .venv holds WHAT (runtime or dev) exactly as the lock files say. A stamp
# tells for which locks and in which folder it was made; dev holds all of runtime.
holds() {
    local has='' state=''
    [[ -r .venv/installed ]] && .venv/bin/python -c '' 2>/dev/null || return 1
    { read -r has && read -r state; } <.venv/installed || return 1
    [[ ($has == dev || $has == "$1") && $state == "$(lock_state)" ]]
}

# stamp WHAT: note that .venv holds it now.
stamp() {
    printf '%s\n%s\n' "$1" "$(lock_state)" >.venv/installed
}

lock_state() {
    { cat requirements.txt requirements-local.txt requirements-dev.txt && printf '%s' "$PWD"; } |
        sha256sum | cut -d ' ' -f 1
}

# venv_is_ours: not where the tree was copied or moved, or the Python is gone: then what is in
# it starts elsewhere or not at all.
venv_is_ours() {
    [[ $(.venv/bin/pip --version 2>/dev/null) == *" from $PWD/.venv/"* ]]
}

# What installs into .venv; the lock files follow.
# shellcheck disable=SC2034
pip_install=(.venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes)

# install_dev: see that .venv holds what requirements-dev.txt says.
install_dev() {
    local python output
    if holds dev; then return; fi
    printf '== installing requirements-dev.txt\n'
    if ! venv_is_ours; then
        python=$(find_python)
        rm -rf .venv
        "$python" -m venv .venv
    fi
    rm -f .venv/installed
    output=$("${pip_install[@]}" -r requirements-dev.txt 2>&1) || fail "$output"
    stamp dev
}
