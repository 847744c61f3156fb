# ---- What runs beside the engine: each in the background, none may fail the job.
pause() {
  sleep "$1" &
  local isthmus_sleeper=$!
  # shellcheck disable=SC2064
  trap "kill $isthmus_sleeper 2>/dev/null; exit" TERM
  wait "$isthmus_sleeper"
}

# Two ways, because some sites let nobody change a job's comment: the comment, which one question shows
# for all jobs, and a file in the run folder, which the operator reads where the comment says nothing.
publish() {
  local isthmus_delay=1 isthmus_words isthmus_told=""
  printf '%s\n' "$1" >"$isthmus_run_directory/port.new" &&
    mv -f -- "$isthmus_run_directory/port.new" "$isthmus_run_directory/port"
  until isthmus_words=$(timeout -k 5 30 scontrol update "JobId=$isthmus_job_id" \
    "Comment=$isthmus_comment:port=$1" 2>&1); do
    isthmus_words=${isthmus_words//[$'\n\r']/ }
    [ -n "$isthmus_told" ] ||
      say "scontrol update JobId=$isthmus_job_id Comment=... failed, and is tried again:" \
        "${isthmus_words:0:300}"
    isthmus_told=yes
    pause "$isthmus_delay"
    isthmus_delay=$((isthmus_delay < 30 ? isthmus_delay * 2 : 60))
  done
}

# The engine listens, so it has read everything: its key file goes, its port is told, a bastion called.
announce() {
  wait_for_listener "$1" "$2"
  # Where nothing could be seen the engine may still have to read it: then it goes with the job.
  [ -z "$isthmus_private" ] || ! listening "$1" || rm -rf -- "$isthmus_private"
  publish "$1"
}
