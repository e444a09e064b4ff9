#!/bin/sh
# The bucket with versioning on, and a key that may use it and nothing else. Repeats change nothing.
set -eu
mc mb --ignore-existing "store/$BUCKET"
mc version enable "store/$BUCKET"
mc admin policy create store hotswap-bucket /setup/bucket-policy.json
mc admin user add store "$ACCESS_KEY" "$SECRET_KEY"
# Attaching what is attached already is an error to mc, not to us.
mc admin policy attach store hotswap-bucket --user "$ACCESS_KEY" ||
  mc admin user info store "$ACCESS_KEY" | grep -q hotswap-bucket
