#!/bin/bash
# Writes into a file of lines NAME=IMAGE:TAG[@sha256:...] the digest that each tag has now, that of the
# index of all platforms. Nothing is written unless every digest is known.
set -euo pipefail
file=$1

digest_of() {
  if command -v skopeo >/dev/null; then
    skopeo inspect --raw "docker://$1" | sha256sum | cut -c1-64
  elif docker buildx version >/dev/null 2>&1; then
    docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$1" | sed 's/^sha256://'
  else
    echo "make digests needs skopeo, or docker with buildx" >&2
    return 1
  fi
}

fresh=$(mktemp "$file.XXXXXX")
trap 'rm -f -- "$fresh"' EXIT
while IFS= read -r line; do
  case $line in
    '#'* | '') printf '%s\n' "$line" ;;
    *)
      tagged=${line#*=}
      tagged=${tagged%@*}
      digest=$(digest_of "$tagged")
      [[ $digest =~ ^[0-9a-f]{64}$ ]] || { echo "no digest of $tagged" >&2; exit 1; }
      printf '%s=%s@sha256:%s\n' "${line%%=*}" "$tagged" "$digest"
      ;;
  esac
done <"$file" >"$fresh"
cat -- "$fresh" >"$file"
