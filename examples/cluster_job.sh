#!/bin/sh
# Score a bucket on an existing Ray cluster, from any machine that can reach its head:
#   RAY_API_SERVER_ADDRESS=http://HEAD:8265 examples/cluster_job.sh s3://my-photos s3://my-scores
#
# skinbatch must be installed in the cluster; nothing is uploaded. The script ends with the exit code of the run,
# and a second call on the same day follows a run that is still going. Ctrl-C stops the run; the same call resumes it.
set -eu

photos=$1
scores=$2
submit=$(dirname "$0")/../jobs/submit.py

exec python "$submit" --name "skinbatch-$(date +%F)" -- \
  skinbatch score "$photos" "$scores" --deadline 6h --exit-zero-on 6 --json
