#!/usr/bin/env bash
# Stream an answer with bash and curl: bash curl.sh '{"prompt": "What is a cursor?"}'
# Prints native events, one a line. Ctrl-C stops the run.
set -euo pipefail

url=${SLUICE_URL:-http://localhost:8000}
body=${1:-'{"prompt": "hi"}'}
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

# The key makes asking again safe: it joins the same run.
created=$(curl -sS --fail-with-body --retry 4 --retry-connrefused "$url/streams" \
  -H 'Content-Type: application/json' -H "Idempotency-Key: $key" -d "$body") || {
  echo "$created" >&2
  exit 1
}
stream=$(sed -n 's/.*"stream_id":"\([A-Za-z0-9_-]*\)".*/\1/p' <<<"$created")
trap 'curl -sS -X POST "$url/streams/$stream/cancel" >&2; exit 130' INT

after= failures=0
while ((failures < 8)); do
  last_id= data=
  while IFS= read -r line; do
    case $line in
      'id: '*) last_id=${line#id: } ;;
      'data: '*) data=${line#data: } ;;
      '')
        # An event counts from its blank line on: half of one is dropped, and comes again.
        [[ -z $data ]] || echo "$data"
        after=$last_id failures=0
        case $data in
          '{"type":"done"'*) exit 0 ;;
          '{"type":"error"'*'"last_seq":'*) exit 1 ;; # without, it is not the answer's end
        esac
        data=
        ;;
    esac
  done < <(curl -sSN --fail-with-body "$url/streams/$stream?format=native&after=$after")
  # A connection that ends without the last event was cut, however politely.
  failures=$((failures + 1))
  sleep 0.5
done
echo 'the service cannot be reached' >&2
exit 3
