#!/bin/sh
# A driftscope command as a job of a Ray cluster; needs `ray` here and driftscope on every node.
#
#   export RAY_ADDRESS=http://HEAD:8265 RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=/secrets/ray-token
#   GPUS=1 deploy/ray/submit.sh driftscope probe paired --model smollm2-135m --fail-on 'verdict>=bug_like'
#   deploy/ray/submit.sh driftscope nightly --history /shared/nightly
#
# The log streams here; the exit code is 0 only where the command's is.
set -eu
here=$(dirname "$0")
exec ray job submit \
  --entrypoint-num-cpus "${CPUS:-4}" \
  --entrypoint-num-gpus "${GPUS:-0}" \
  --runtime-env "$here/runtime-env.yaml" \
  -- "$@"
