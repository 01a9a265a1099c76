#!/usr/bin/env bash
# Brings docker-compose.yml up for real and walks through its promise: an agent whose only way out is the gateway makes a
# governed call through both replicas, cannot go around them, loses access when its task ends; each replica finds what the other
# recorded, a human is forgotten at both, and both logs verify against copied keys and the witness. No secret is where it should not be.
# Needs a Docker engine, docker-compose (or the compose plugin) and Node. Takes everything down again.
set -euo pipefail
cd "$(dirname "$0")/.."

project=keyless-compose-test
compose() {
  if docker compose version >/dev/null 2>&1; then docker compose -p "$project" "$@"; else docker-compose -p "$project" "$@"; fi
}
fail() {
  echo "FAILED: $*" >&2
  compose ps >&2 || true
  compose logs --no-color --tail=40 gateway-1 gateway-2 prepare upstream witness postgres >&2 || true
  exit 1
}
within() { # within SECONDS COMMAND…: until it succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@" 2>/dev/null; do [ $SECONDS -lt $end ] || return 1; sleep 0.5; done
}
field() { node -e 'console.log(JSON.parse(require("fs").readFileSync(0, "utf8"))[process.argv[1]])' "$1"; }

trap 'compose down --volumes --timeout 15 >/dev/null 2>&1 || true' EXIT
compose down --volumes >/dev/null 2>&1 || true

echo "== build"
for image in keyless:gateway keyless-demo-upstream:demo-upstream keyless-agent:agent; do
  # The host's network: package registries may be reachable only from there.
  said=$(docker build --quiet --network host -f deploy/Dockerfile --target "${image#*:}" -t "${image%%:*}:latest" . 2>&1) || fail "build: $said"
done

echo "== up"
compose up --detach --no-build >/dev/null 2>&1 || fail "compose up"
for replica in gateway-1 gateway-2 witness postgres; do
  id=$(compose ps -q "$replica")
  for _ in $(seq 60); do
    state=$(docker inspect -f '{{.State.Health.Status}}' "$id")
    [ "$state" = healthy ] && break
    [ "$(docker inspect -f '{{.State.Running}}' "$id")" = true ] || fail "$replica ended"
    sleep 1
  done
  [ "$state" = healthy ] || fail "$replica is $state"
  [ "$replica" != postgres ] || continue # root in there belongs to its image
  [ "$(docker exec "$id" id -u)" != 0 ] || fail "$replica runs as root"
  ! docker exec "$id" touch /app/written 2>/dev/null || fail "$replica can write to its root file system"
done

echo "== the client secret, sealed at replica 1, rotated to the right one, and there for both"
sealed() { compose exec -T gateway-1 keyless secret "$1" demo-client >/dev/null || fail "secret $1"; }
head -c 24 /dev/urandom | base64 | sealed set
compose exec -T upstream cat /demo/client-secret | sealed rotate
compose exec -T gateway-2 keyless secret list | grep -q '^demo-client' || fail "replica 2 does not list what replica 1 sealed"

echo "== a task, opened at replica 1"
opened=$(compose exec -T gateway-1 keyless task open --task "read the notes" --scope "demo:notes.list" --json) || fail "task open: $opened"
task=$(field task <<<"$opened")
handle=$(field handle <<<"$opened")

agent() { # agent SCRIPT: runs in the agent's container, with the gateway as proxy
  compose exec -T -e "https_proxy=http://task:$handle@gateway:8080" -e CURL_CA_BUNDLE=/trust/ca.pem agent sh -c "$1"
}
notes=https://api.keyless.test:9443/notes

echo "== the governed call, 20 times through the shared address"
answers=$(agent "for n in \$(seq 20); do curl -sS -m 10 $notes || echo \"call \$n failed\"; done") || fail "calls: $answers"
[ "$(grep -c 'Agents need access, not keys' <<<"$answers")" = 20 ] || fail "answers: $answers"
! grep -q failed <<<"$answers" || fail "answers: $answers"

echo "== what is not granted is refused"
[ "$(agent "curl -sS -m 10 -o /dev/null -w '%{http_code}' -X DELETE $notes/1")" = 403 ] || fail "a call outside the scope was not refused"

echo "== no way around the gateway"
bare() { compose exec -T agent sh -c "$1"; }
upstream=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$(compose ps -q upstream)")
redis=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}' "$(compose ps -q redis)")
for place in "$notes" "https://${upstream%% *}:9443/notes" "http://${redis%% *}:6379" http://postgres:5432 http://witness:8090 http://gateway:8081/health/live https://1.1.1.1/; do
  ! bare "curl -sS -k -m 3 -o /dev/null $place" 2>/dev/null || fail "the agent reached $place by itself"
done
! bare 'ls /keys /demo /config' >/dev/null 2>&1 || fail "the agent sees the keys"

echo "== the end of the task ends its grant everywhere"
compose exec -T gateway-2 keyless task end "$task" >/dev/null || fail "task end at the other replica"
refused=$(agent "for n in \$(seq 8); do curl -sS -m 10 -o /dev/null -w '%{http_connect} ' $notes || true; done" 2>/dev/null)
[ "$refused" = "407 407 407 407 407 407 407 407 " ] || fail "after the task: $refused"

echo "== each replica finds what both recorded"
found() { compose exec -T "$1" keyless log find --config "/config/$1.yaml" --task "$task" "${@:2}" --count; }
for replica in gateway-1 gateway-2; do
  for log in gateway-1 gateway-2; do
    calls=$(found "$replica" --log "keyless.test/$log" --operation demo:notes.list) || fail "$replica: log find"
    [ "$calls" -gt 0 ] || fail "$replica finds no call that $log served"
    echo "$replica: $calls calls in the log of $log"
  done
  [ "$(found "$replica" --human keyless)" -gt 20 ] || fail "$replica does not find the human by name"
done

echo "== no secret outside its place"
secret=$(compose exec -T upstream cat /demo/client-secret)
password=$(compose exec -T postgres cat /config/postgres-password)
index=$(compose exec -T postgres sh -c 'PGPASSWORD=$(cat /config/postgres-password) pg_dump -h 127.0.0.1 -U keyless keyless') || fail "pg_dump"
said=$(compose logs --no-color 2>&1)
shown=$(compose config 2>&1; docker inspect $(compose ps -aq))
grep -q "$task" <<<"$index" || fail "the index does not name the task"
for canary in "$secret" "$password" "$handle" "read the notes"; do
  [ ${#canary} -gt 10 ] || fail "there is no canary"
  for place in index said shown; do ! grep -qF -- "$canary" <<<"${!place}" || fail "${place}: a secret, or a name that is sealed: ${canary:0:6}…"; done
done

echo "== a human who is forgotten at one replica is forgotten at both"
compose exec -T gateway-1 keyless log forget --human keyless >/dev/null || fail "log forget"
forgotten() { [ "$(found gateway-2 --human keyless)" = 0 ]; }
within 5 forgotten || fail "gateway-2 still finds the human"
[ "$(found gateway-2)" -gt 20 ] || fail "gateway-2 lost records"

echo "== both logs verify, as an auditor would: with public keys, and what the witness signed"
verify() {
  docker run --rm --network none -v "${project}_gateway-1:/logs/gateway-1:ro" -v "${project}_gateway-2:/logs/gateway-2:ro" \
    -v "${project}_trust:/trust:ro" keyless:latest log verify /logs/gateway-1/audit /logs/gateway-2/audit --strict \
    --public-key /trust/gateway-1.pub --public-key /trust/gateway-2.pub --witness-key /trust/witness.pub --max-age 60
}
within 15 verify || { verify || true; fail "the logs do not verify"; }

echo "== a replica drains and ends with 0"
id=$(compose ps -q gateway-2)
docker stop --time 20 "$id" >/dev/null
[ "$(docker inspect -f '{{.State.ExitCode}}' "$id")" = 0 ] || fail "gateway-2 ended with $(docker inspect -f '{{.State.ExitCode}}' "$id")"
echo "compose: all passed"
