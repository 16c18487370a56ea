#!/bin/bash
# Train on one machine that can be taken away, and resume when it starts again:
#   spot.sh task.py:experiment --executor processes --out /mnt/disk/runs/first
# The run directory must be on a disk that outlives the machine. Start the script at boot, for example with
#   systemd-run --property=Restart=on-failure --property=RestartForceExitStatus=75 /path/to/spot.sh ...
set -euo pipefail
exec pbt run "$@" --resume --no-progress
