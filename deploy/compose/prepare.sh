#!/bin/sh
# Before the first replica starts: the keys they share, the key of their witness, the password of their index, what agents and
# auditors may trust, and settings for each replica.
# Run again it keeps existing keys, renews the CA if that is due, and copies the certificates anew.
set -eu
# The shipped demo service, where docker-compose.yml puts it.
sed 's|^addresses:.*|addresses: [172.30.97.0/24]|' /app/policies/services/demo.yaml >/config/demo.yaml
witness=$(keyless witness key --name witness.keyless.test)
for replica in gateway-1 gateway-2; do
  sed "s|@replica@|$replica|; s|@witness@|$witness|" /compose/keyless.yaml >"/config/$replica.yaml"
done

umask 077
# Replicas have the keys read-only, but for those of humans, which have a volume of their own there.
mkdir -p /keys/personal
# Made here, so that it stands in no file of the repository.
[ -s /config/postgres-password ] || node -p 'crypto.randomBytes(24).toString("base64url")' >/config/postgres-password
echo "postgres://keyless:$(cat /config/postgres-password)@postgres:5432/keyless" >/config/postgres-url

# What the CA may sign for follows from the services; replicas have the keys read-only.
echo 'services: [/config/demo.yaml]' >/config/keys.yaml
keyless keys --dir /keys --config /config/keys.yaml
install -m 0644 /keys/ca.pem /trust/ca.pem
echo "$witness" >/trust/witness.pub
chmod 0644 /trust/witness.pub
