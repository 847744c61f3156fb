# ---- The start gate: the first act, one atomic step. A duplicate submission, a requeue or a second
# start under the same id ends here, before a model is loaded. The claim names this very process:
# after a controller crash the same id can start twice with the same restart count.
pass_gate() {
  local isthmus_me
  isthmus_me="$isthmus_start.${SLURMD_NODENAME:-node}.$$.$(date +%s%N)"
  mkdir -p -- "$isthmus_work_directory" 2>/dev/null
  ln -sT -- "$isthmus_me" "$isthmus_claim" 2>/dev/null && return
  # A network file system may repeat a request whose answer was lost: then the claim is ours.
  [ "$(readlink -- "$isthmus_claim")" = "$isthmus_me" ] && return
  [ ! -L "$isthmus_claim" ] ||
    fail 75 "this attempt was claimed by $(readlink -- "$isthmus_claim"): nothing to do"
  fail 74 "cannot write $isthmus_claim"
}
