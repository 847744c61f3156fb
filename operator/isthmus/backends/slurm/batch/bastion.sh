# ---- The call to a bastion, where the site lets nobody in: ssh listens there for the engine. Its key
# waits in a file that this user alone can read, and is taken to this node, in memory where it can be.
isthmus_tunnel_folder=""

take_tunnel_key() {
  local isthmus_root
  [ -n "$isthmus_bastion_host" ] || return 0
  await_secret "$isthmus_shared_tunnel_key" "key for the bastion"
  for isthmus_root in /dev/shm "${TMPDIR:-/tmp}"; do
    isthmus_tunnel_folder=$(mktemp -d -- "$isthmus_root/isthmus-tunnel-$isthmus_job_id.XXXXXX" \
      2>/dev/null) && break
  done
  cp -- "$isthmus_shared_tunnel_key" "$isthmus_tunnel_folder/key" ||
    fail 78 "no private folder on this node"
  printf '%s\n' "$isthmus_bastion_known" >"$isthmus_tunnel_folder/known_hosts"
  rm -f -- "$isthmus_shared_tunnel_key"
}

forget_tunnel_key() { [ -z "$isthmus_tunnel_folder" ] || rm -rf -- "$isthmus_tunnel_folder"; }

# For as long as the engine runs: the first call after a loss is immediate, those after one that
# failed are ever further apart. The bastion lets a job in when the operator has seen its port, so in
# the first two minutes they stay close.
call_bastion() {
  local isthmus_delay=0 isthmus_first isthmus_began isthmus_now isthmus_child
  wait_for_listener "$1" "$2" >/dev/null # `announce` says what is to be said
  printf -v isthmus_first '%(%s)T' -1
  while :; do
    printf -v isthmus_began '%(%s)T' -1
    ssh -F none -N -T -i "$isthmus_tunnel_folder/key" -o BatchMode=yes -o IdentitiesOnly=yes \
      -o ExitOnForwardFailure=yes -o ConnectTimeout=10 -o LogLevel=ERROR \
      -o ServerAliveInterval=5 -o ServerAliveCountMax=3 -o StrictHostKeyChecking=yes \
      -o "UserKnownHostsFile=$isthmus_tunnel_folder/known_hosts" -o GlobalKnownHostsFile=/dev/null \
      -R "$isthmus_forward_port:127.0.0.1:$1" -p "$isthmus_bastion_port" \
      -l "$isthmus_bastion_user" -- "$isthmus_bastion_host" &
    isthmus_child=$!
    # shellcheck disable=SC2064
    trap "kill $isthmus_child 2>/dev/null; exit" TERM
    wait "$isthmus_child"
    printf -v isthmus_now '%(%s)T' -1
    if [ $((isthmus_now - isthmus_began)) -ge 30 ]; then isthmus_delay=0; fi
    [ "$isthmus_delay" -eq 0 ] || pause "$isthmus_delay"
    isthmus_delay=$((isthmus_delay == 0 ? 1 : isthmus_delay < 15 ? isthmus_delay * 2 : 30))
    if [ $((isthmus_now - isthmus_first)) -lt 120 ] && [ "$isthmus_delay" -gt 4 ]; then
      isthmus_delay=4
    fi
  done
}
