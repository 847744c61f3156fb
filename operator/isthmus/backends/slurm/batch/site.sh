# ---- The site's modules and set-up. They are the administrator's: an error in the set-up text is
# reported, and the engine is tried all the same.
set_up() {
  local isthmus_file isthmus_module
  set +u
  if [ ${#isthmus_modules[@]} -gt 0 ] && ! type module >/dev/null 2>&1; then
    for isthmus_file in /etc/profile.d/*mod*.sh; do
      # shellcheck disable=SC1090
      [ ! -r "$isthmus_file" ] || . "$isthmus_file"
    done
  fi
  for isthmus_module in "${isthmus_modules[@]}"; do
    module load "$isthmus_module" ||
      fail 78 "the environment module $isthmus_module cannot be loaded"
  done
  eval "$isthmus_setup" || say "the site's set-up ended with $?"
  set -u +e
}
