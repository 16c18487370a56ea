#!/bin/bash
#SBATCH --job-name=pbt
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@60
#
# Start Ray on the allocation and train; a job that is submitted or requeued again resumes the run:
#   sbatch slurm.sh task.py:experiment --gpus 1 --out runs/first
# At the time limit, and after an error of the infrastructure (exit code 75), the job requeues itself.
set -euo pipefail
wait_seconds=${PBT_WAIT_SECONDS:-120}  # for the head of the cluster
requeues=${PBT_REQUEUES:-3}            # after errors of the infrastructure

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
on_head=(srun --nodes=1 --ntasks=1 --overlap --nodelist="${nodes[0]}")
# Other jobs may use the same machines: a free port, a folder of this job, only the allocated cores.
port=$("${on_head[@]}" python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
address=${nodes[0]}:$port
start=(ray start --block --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --min-worker-port=0 --max-worker-port=0)
start+=(--temp-dir="/tmp/ray-$SLURM_JOB_ID")

steps=()
trap 'kill "${steps[@]}" 2> /dev/null || true' EXIT
"${on_head[@]}" "${start[@]}" --head --port="$port" --include-dashboard=false &
steps+=($!)
deadline=$((SECONDS + wait_seconds))
until ray status --address "$address" > /dev/null 2>&1; do
  if ((SECONDS > deadline)) || ! kill -0 "${steps[0]}" 2> /dev/null; then
    echo "slurm.sh: Ray did not start on ${nodes[0]} within $wait_seconds s" >&2
    exit 75
  fi
  sleep 2
done
others=$((${#nodes[@]} - 1))
if ((others > 0)); then
  # The run uses each node from the moment at which it joins.
  srun --nodes="$others" --ntasks="$others" --overlap --exclude="${nodes[0]}" "${start[@]}" --address="$address" &
  steps+=($!)
fi

pbt run "$@" --executor ray --address "$address" --resume --no-progress &
driver=$!
trap 'kill -TERM "$driver" 2> /dev/null || true' TERM INT
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2> /dev/null; do  # a signal ends `wait` before the program
  code=0
  wait "$driver" || code=$?
done
if ((code == 143 || (code == 75 && ${SLURM_RESTART_COUNT:-0} < requeues))); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
