#!/bin/sh
# AetherFlow in one file: this script, then the Deno runtime and the program, each compressed. The first start unpacks
# them into a folder named by their hash, later starts check that folder and run what is in it.
set -eu
HASH=@HASH@
OFFSET=@OFFSET@
# One line a file: offset and length in the payload, size when unpacked, mode, path.
FILES='@FILES@'
COUNT=@COUNT@

say() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 1
}

# The folder of all versions belongs to this user and nobody else may write there, or another user could swap what it holds.
place() {
  if [ -n "${AETHERFLOW_CACHE:-}" ]; then
    cache=$AETHERFLOW_CACHE
  else
    case "${XDG_CACHE_HOME:-}" in
      /*) cache=$XDG_CACHE_HOME/aetherflow ;;
      *)
        [ -n "${HOME:-}" ] || say 'no folder to unpack into: set HOME, XDG_CACHE_HOME or AETHERFLOW_CACHE'
        cache=$HOME/.cache/aetherflow
        ;;
    esac
  fi
  case "$cache" in
    /*) ;;
    *) cache=$PWD/$cache ;;
  esac
  if [ ! -d "$cache" ]; then
    (umask 077 && mkdir -p -- "$cache") || say "cannot make the folder $cache: set AETHERFLOW_CACHE to one that can be made"
  fi
  owned "$cache" 'd????-??-?*' || say "$cache is not this user's own folder or others may write there: set AETHERFLOW_CACHE to another"
  dir=$cache/$HASH
}

# Whether a path is this user's own (a link does not count) and its mode matches.
owned() {
  listed=$(LC_ALL=C ls -lnd -- "$1" 2>/dev/null) || return 1
  set -f
  # shellcheck disable=SC2086 # split into fields on purpose
  set -- "$2" $listed
  set +f
  [ "$4" = "$uid" ] || return 1
  # shellcheck disable=SC2254 # the pattern is a pattern on purpose
  case "$2" in $1) return 0 ;; esac
  return 1
}

# Whether every file is there with its size and owner. Nobody else can enter the folder, so this finds what got lost.
whole() {
  paths=$(printf '%s\n' "$FILES" | while read -r _ _ _ _ path; do printf '%s ' "$path"; done)
  # shellcheck disable=SC2086 # the paths are ours and hold no spaces
  (cd "$dir" && LC_ALL=C ls -lnd -- $paths) 2>/dev/null | (
    seen=0
    while read -r mode _ owner _ size _ _ _ path; do
      case "$mode" in -*) ;; *) exit 1 ;; esac
      [ "$owner" = "$uid" ] || exit 1
      case "$FILES" in *" $size "????" $path"*) ;; *) exit 1 ;; esac
      seen=$((seen + 1))
    done
    [ "$seen" -eq "$COUNT" ]
  )
}

# Unpacks beside the final place and renames, so that a start never meets half a folder. Runs in a subshell.
unpack() {
  [ -r "$0" ] || say 'cannot read its own file'
  temp=$cache/.unpack.$HASH.$$
  trap 'rm -rf -- "$temp"' EXIT
  trap 'exit 1' HUP INT TERM
  # What a killed start left long ago.
  find "$cache" -maxdepth 1 -name '.unpack.*' -mmin +60 -exec rm -rf -- {} + 2>/dev/null || :

  sum=
  if command -v sha256sum >/dev/null; then
    sum=$(tail -c "+$((OFFSET + 1))" -- "$0" | sha256sum)
  elif command -v shasum >/dev/null; then
    sum=$(tail -c "+$((OFFSET + 1))" -- "$0" | shasum -a 256)
  fi
  # Without either command gzip's own checksums stay.
  case "$sum" in "$HASH"* | '') ;; *) say 'is damaged: download or compile it again' ;; esac

  umask 077
  mkdir -- "$temp" || say "cannot unpack into $cache"
  printf '%s\n' "$FILES" | while read -r offset length _ mode path; do
    case "$path" in */*) mkdir -p -- "$temp/${path%/*}" || exit 1 ;; esac
    tail -c "+$((OFFSET + offset + 1))" -- "$0" | head -c "$length" | gzip -dc >"$temp/$path" || exit 1
    chmod "$mode" "$temp/$path" || exit 1
  done || say "cannot unpack into $cache: is it full?"

  # Another start may have been faster; a folder that lost files makes way.
  if [ -d "$dir" ]; then
    if whole; then exit 0; fi
    mkdir -- "$temp/.lost" && mv -- "$dir" "$temp/.lost/" || say "cannot replace $dir: remove it"
  fi
  mv -- "$temp" "$dir" 2>/dev/null || [ -d "$dir" ] || say "cannot unpack into $cache"
  # Renaming onto a folder that came up meanwhile puts ours into it.
  rm -rf -- "$dir/${temp##*/}" "$dir/.lost"
}

uid=$(id -u)
place
if [ -e "$dir" ] || [ -L "$dir" ]; then
  owned "$dir" 'drwx------*' || say "$dir is not this user's own private folder: remove it, or set AETHERFLOW_CACHE to another"
fi
if ! whole; then
  (unpack) || exit 1
  owned "$dir" 'drwx------*' || say "$dir is not this user's own private folder: remove it, or set AETHERFLOW_CACHE to another"
fi

# The runtime keeps its compiled code here, asks nobody for updates and looks for no package.json around.
DENO_DIR=$dir/.deno DENO_NO_UPDATE_CHECK=1 DENO_NO_PACKAGE_JSON=1
export DENO_DIR DENO_NO_UPDATE_CHECK DENO_NO_PACKAGE_JSON
# `start` runs under the keeper, which finds deno.json above the program; all other commands may run no processes.
permissions=start
[ "${1:-}" != start ] || permissions=keep
exec "$dir/deno" run -q --config "$dir/deno.json" "-P=$permissions" --no-prompt --no-lock --no-remote --no-npm --cached-only \
  "$dir/@MAIN@" "$@"
exit 1
