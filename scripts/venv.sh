# Sourced by the other scripts, not run: finds a Python, makes the virtual environment once, installs raftkv into it.
#
#   . scripts/venv.sh; ensure_venv [dev]     afterwards $venv_bin is the environment's bin directory
#
# VENV_DIR names another place than .venv; PYTHON another interpreter than the first fitting one. Installs again only when
# pyproject.toml, the checkout's place or what is asked for changed. The install is editable: edited sources need nothing.
# Written for bash 3.2, which is what macOS has.

venv_dir=${VENV_DIR:-.venv}
venv_bin=$venv_dir/bin

say() { printf '%s\n' "$*" >&2; }
die() { say "$(basename "$0"): $*"; exit 1; }

# Prints the first Python that is new enough and can make environments.
find_python() {
  local candidate found_old="" found_bare=""
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14 python}; do
    # It is run, not only looked for: a shim may stand there for a version that isn't installed.
    if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      found_old="$found_old $candidate"
    elif ! "$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1; then
      found_bare="$found_bare $candidate"
    else
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  if [ -n "$found_bare" ]; then
    say "Python is here ($(echo $found_bare)), but without its venv and ensurepip modules."
    say "Debian, Ubuntu: apt install python3-venv (or python3.13-venv, for the version you have). Then run this again."
  else
    say "No Python 3.11 or newer was found (tried:$found_old)."
    say "Install one (https://www.python.org/downloads/, your system's packages, pyenv or uv), or name it: PYTHON=/path/to/python3.13 $0"
  fi
  return 1
}

# What the environment must have been made from to be used as it is.
venv_stamp() { printf '%s\n%s\n' "$PWD" "$1"; cat pyproject.toml; }

ensure_venv() {
  make_venv "$@"
  # Where PYTHONDONTWRITEBYTECODE is set, each node would compile raftkv anew when it starts: a third of what that takes.
  "$venv_bin/python" -m compileall -q raftkv >&2 || say "could not keep raftkv compiled; its nodes start slower"
}

make_venv() {
  local extra=${1:-} python target=. stamp=$venv_dir/raftkv-installed
  # An environment with the development tools will do for those who don't need them.
  [ -x "$venv_bin/raftkv" ] && [ -f "$stamp" ] && {
    [ "$(cat "$stamp")" = "$(venv_stamp dev)" ] && return 0
    [ "$(cat "$stamp")" = "$(venv_stamp "$extra")" ] && return 0
  }
  if ! "$venv_bin/python" -m pip --version >/dev/null 2>&1; then
    if [ -e "$venv_dir" ] && [ ! -f "$venv_dir/pyvenv.cfg" ] && [ -n "$(ls -A "$venv_dir")" ]; then
      die "$venv_dir is there, but is no virtual environment; move it away, or set VENV_DIR"
    fi
    python=$(find_python) || exit 1
    say "making $venv_dir with $("$python" --version)"
    # --clear: what an interrupted run left behind has no working pip.
    "$python" -m venv --clear "$venv_dir" || die "could not make $venv_dir (disk full? no right to write here?)"
  fi
  [ -z "$extra" ] || target=".[$extra]"
  say "installing raftkv into $venv_dir (once; a minute on a slow line)"
  rm -f "$stamp"
  "$venv_bin/python" -m pip install -qq --disable-pip-version-check --editable "$target" ||
    die "pip could not install raftkv; its message is above (no network? a proxy or an index to set with PIP_INDEX_URL?)"
  venv_stamp "$extra" >"$stamp"
}
