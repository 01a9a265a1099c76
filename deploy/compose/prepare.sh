#!/bin/sh
# Before the first replica starts: the keys they share, what agents may trust, and settings for each replica.
# Run twice it changes nothing: existing keys are kept.
set -eu
keyless keys --dir /keys
install -m 0644 /keys/ca.pem /trust/ca.pem

# The shipped demo service, where docker-compose.yml puts it.
sed 's|^addresses:.*|addresses: [172.30.97.0/24]|' /app/policies/services/demo.yaml >/config/demo.yaml
for replica in gateway-1 gateway-2; do
  sed "s|@replica@|$replica|" /compose/keyless.yaml >"/config/$replica.yaml"
done
