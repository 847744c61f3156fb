# ---- Whose port it is. Somebody with a job on the same node may listen at a port that we chose before
# the engine does: what is sent there is his then. So the port is published when every socket that
# listens at it is the engine's own.

# Whether a process belongs to the engine that leads this process group: by group, by descent, or by
# the job's cgroup, for what has left both.
is_engines() {
  local isthmus_pid=$1 isthmus_text="" isthmus_fields
  { IFS= read -r -d '' isthmus_text <"/proc/$isthmus_pid/cgroup"; } 2>/dev/null
  [[ $isthmus_text != *"/job_$isthmus_job_id/"* ]] || return 0
  while [ "$isthmus_pid" -gt 1 ]; do
    [ "$isthmus_pid" -ne "$2" ] || return 0
    isthmus_text=""
    { IFS= read -r -d '' isthmus_text <"/proc/$isthmus_pid/stat"; } 2>/dev/null
    read -r -a isthmus_fields <<<"${isthmus_text##*) }" # state, parent, group
    [ ${#isthmus_fields[@]} -gt 2 ] || return 1
    [ "${isthmus_fields[2]}" -ne "$2" ] || return 0
    isthmus_pid=${isthmus_fields[1]}
  done
  return 1
}

# Who listens at a port, seen from the engine of a group: ours, nobody, other, hidden (a socket of this
# user, and no process that holds it can be seen) or unknown (the node shows no sockets).
listener() {
  local isthmus_line isthmus_fields isthmus_place isthmus_answer=nobody
  [ -r /proc/net/tcp ] || [ -r /proc/net/tcp6 ] || { echo unknown; return; }
  while read -r -a isthmus_fields; do
    [ "${isthmus_fields[7]}" = "$EUID" ] || { echo other; return; }
    isthmus_answer=hidden
    # Of other users find sees nothing, and of our own there are few.
    while read -r isthmus_place; do
      isthmus_place=${isthmus_place#/proc/}
      isthmus_answer=other
      is_engines "${isthmus_place%%/*}" "$2" && { isthmus_answer=ours; break; }
    done < <(find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[${isthmus_fields[9]}\]" 2>/dev/null)
    [ "$isthmus_answer" = ours ] || break
  done < <(sockets_at "$1")
  echo "$isthmus_answer"
}

# Returns once the port may be published.
wait_for_listener() {
  local isthmus_who isthmus_told="" isthmus_hidden=0
  while :; do
    isthmus_who=$(listener "$1" "$2")
    case $isthmus_who in
      ours) return ;;
      unknown)
        say "this node does not show who listens at port $1: publishing it without a look"
        return
        ;;
      hidden)
        # Twice, because between the two looks at the node a socket may have gone.
        isthmus_hidden=$((isthmus_hidden + 1))
        if [ "$isthmus_hidden" -gt 1 ]; then
          say "what listens at port $1 is this user's, and cannot be seen further: publishing it"
          return
        fi
        ;;
      other)
        [ -n "$isthmus_told" ] ||
          say "port $1 is not published: another process than the engine listens there"
        isthmus_told=yes
        pause 4
        ;;
    esac
    pause 1
  done
}
