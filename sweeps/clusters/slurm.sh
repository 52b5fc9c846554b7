#!/bin/bash
# A Slurm job, filled in for @config@: @actors@ actors, each with @cpus@ CPUs, @gpus@ GPUs and some
# @memory_gb@ GB of memory. Never run under Slurm; its steps were tried on one machine.
#
# Exclusive nodes only: `ray symmetric-run` refuses a node where any Ray runs, and ends with
# `ray stop`, which ends every Ray of yours on the node. Fill in VENV and SHARED, a disk that all
# nodes see; submit it from the folder of the config with: sbatch FILE
#SBATCH --job-name=edgesweep-@name@
#SBATCH --nodes=@nodes@
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
@node_gpus@#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the end: the shards in flight are finished, and the job is queued again.
#SBATCH --signal=B:TERM@120
set -euo pipefail
VENV=/VENV
SHARED=/SHARED

export PATH=$VENV/bin:$PATH
export EDGESWEEP_CACHE=${EDGESWEEP_CACHE:-${TMPDIR:-/tmp}/edgesweep-cache-$SLURM_JOB_ID}
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# Slurm starts this script on the first node, which becomes the head; of its addresses the first.
address=$(hostname -I | cut -d ' ' -f 1):6379
driver=$SHARED/edgesweep-$SLURM_JOB_ID.pid
stopped=no
# Only the driver is told: to a step, Slurm would send the signal to Ray's own processes too.
stop() { stopped=yes; kill -TERM "$(cat "$driver")" || true; }
trap stop TERM

srun ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  bash -c 'echo $$ > "$0"; exec "$@"' "$driver" \
  edgesweep run @config@ --out "$SHARED/runs/@name@" \
  --set execution.address="$address"@sets@ &
step=$!
code=0
wait "$step" || code=$?
if [ "$stopped" = yes ]; then   # what `wait` told of was the signal
  code=0
  wait "$step" || code=$?
fi
rm -f "$driver"
if [ "$stopped" = yes ] && [ "$code" != 0 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
