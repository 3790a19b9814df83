#!/bin/sh
# One prompt with curl, for GNU parallel: `one.sh ROW PROMPT` submits, polls every second and downloads.
asked="{\"creation_type\": 3, \"model_code\": \"kling-v2-1\", \"aspect_ratio\": \"1:1\", \"clarity\": 1024, \"ref_prompt\": \"$2\"}"
call() { curl -q -sS -H "access_token: $TOKEN" -H "Content-Type: application/json" "$@"; }
while :; do
    answer=$(call -d "$asked" "$URL/submit") || exit 1
    id=$(printf %s "$answer" | sed -n 's/.*"data": *"\([^"]*\)".*/\1/p')
    [ -n "$id" ] && break
    sleep 1
done
while :; do
    answer=$(call "$URL?unique_id=$id") || exit 1
    case $answer in *'"Success"'*) break ;; esac
    sleep 1
done
link=$(printf %s "$answer" | sed -n 's/.*"output_url": *\["\([^"]*\)".*/\1/p')
curl -q -sS -f -o "$FILES/$1.png" "$link"
