#!/bin/sh
# Copies the public keys of the logs to where the witness, and whoever verifies, may read them. They exist when a replica has started once.
set -eu
for replica in gateway-1 gateway-2; do
  for _ in $(seq 120); do
    [ ! -s "/logs/$replica/audit/log.pub" ] || break
    sleep 1
  done
  cp "/logs/$replica/audit/log.pub" "/trust/$replica.pub"
done
