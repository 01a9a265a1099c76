#!/bin/sh
# Before the first replica starts: the keys they share, what agents may trust, and settings for each replica.
# Run again it keeps existing keys, renews the CA if that is due, and copies the certificates anew.
set -eu
# The shipped demo service, where docker-compose.yml puts it.
sed 's|^addresses:.*|addresses: [172.30.97.0/24]|' /app/policies/services/demo.yaml >/config/demo.yaml
for replica in gateway-1 gateway-2; do
  sed "s|@replica@|$replica|" /compose/keyless.yaml >"/config/$replica.yaml"
done

# What the CA may sign for follows from the services; replicas have the keys read-only.
echo 'services: [/config/demo.yaml]' >/config/keys.yaml
keyless keys --dir /keys --config /config/keys.yaml
install -m 0644 /keys/ca.pem /trust/ca.pem
