#!/bin/sh
# curl, wget, npm and pip of the matrix: CLIENT BASE CASE… → one JSON line a case, as the client's user would see it.
client=$1 base=$2
shift 2
own='Authorization: Bearer placeholder-of-the-agent'
json='Content-Type: application/json'

pieces() { head -c 3145728 /dev/zero | tr '\0' u; }
digest() {
  file=$(mktemp)
  cat >"$file"
  printf '{"bytes":%s,"sha256":"%s"}' "$(wc -c <"$file" | tr -d ' ')" "$(sha256sum "$file" | cut -d' ' -f1)"
  rm -f "$file"
}
# The second event comes only after the first one was seen.
events() {
  while read -r line; do
    case $line in
    "data: one") $* >/dev/null; printf '{"events":["one"' ;;
    data:*) printf ',"%s"' "$(printf %s "${line#data: }" | tr -d '\r')" ;;
    esac
  done
  printf ']}'
}

with_curl() {
  case $1 in
  get) curl -sS -H "$own" "$base/get" ;;
  post) curl -sS -H "$own" -H "$json" -d '{"from":"curl"}' "$base/post" ;;
  upload) pieces | curl -sS -H "$own" -X POST -T - "$base/upload" ;;
  download) curl -sS -H "$own" "$base/download" | digest ;;
  sse) curl -sSN -H "$own" "$base/sse" | events curl -sS "$base/seen" ;;
  refused) curl -sS -H "$own" -X DELETE -w '{"status":%{http_code}' "$base/refused" | sed 's/^\(.*\){"status":\([0-9]*\)$/{"text":\1,"status":\2}/' ;;
  esac
}
with_wget() {
  case $1 in
  get) wget -qO- --header "$own" "$base/get" ;;
  post) wget -qO- --header "$own" --header "$json" --post-data '{"from":"wget"}' "$base/post" ;;
  upload) file=$(mktemp) && pieces >"$file" && wget -qO- --header "$own" --post-file "$file" "$base/upload"; rm -f "$file" ;;
  download) wget -qO- --header "$own" "$base/download" | digest ;;
  sse) wget -qO- --header "$own" "$base/sse" | events wget -qO- "$base/seen" ;;
  refused) printf '{"text":%s}' "$(wget -qO- --content-on-error --method DELETE --header "$own" "$base/refused")" ;;
  esac
}

# npm and pip fetch a package; what they say on refusal goes to stderr.
with_npm() {
  dir=$(mktemp -d)
  cd "$dir" || exit
  echo '{"private":true}' >package.json
  printf '%s:_authToken=placeholder-of-the-agent\nregistry=%s/\ncache=%s/cache\nfetch-retries=0\n' "${base#https:}/" "$base" "$dir" >.npmrc
  case $1 in
  get) npm view matrix-package dist-tags --json | tr -d '\n' ;;
  download) npm install --no-audit --no-fund --silent matrix-package && cat node_modules/matrix-package/found.json ;;
  refused) npm view refused-package 2>&1 | sed -n 's/^npm error //p' | sed 's/["\\]/\\&/g' | tr '\n' ' ' | sed 's/.*/{"text":"&"}/' ;;
  esac
  rm -rf "$dir"
}
with_pip() {
  dir=$(mktemp -d)
  fetch() { python3 -m pip download --quiet --no-cache-dir --no-deps --retries 0 --index-url "$base/simple" --dest "$dir" "$1"; }
  case $1 in
  download) fetch matrix-package && python3 -c "import sys, zipfile; print(zipfile.ZipFile(sys.argv[1]).read('found.json').decode())" "$dir"/*.whl ;;
  refused) fetch refused-package 2>&1 | tail -1 | sed 's/["\\]/\\&/g; s/.*/{"text":"&"}/' ;;
  esac
  rm -rf "$dir"
}

for one in "$@"; do
  found=$("with_$client" "$one" 2>"/tmp/keyless-matrix.$$")
  [ -n "$found" ] || found="{\"error\":\"$(tr '"\n' "' " <"/tmp/keyless-matrix.$$")\"}"
  rm -f "/tmp/keyless-matrix.$$"
  printf '{"case":"%s","found":%s}\n' "$one" "$found"
done
